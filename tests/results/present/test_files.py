"""The table of a run in every format: same content, complete files, and a terminal table that fits the screen."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import results
from results.present.files import overview, render, render_parquet, write_all
from results.present.terminal import print_run
from results.schema import COLUMNS, NAMES
from tests.results.synthetic import Run
from trainer.errors import InputError
from trainer.records.files import write_json

SEEDS = (42, 1337, 7)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four arms with a failure, a seed over the cap, QAT that was not live, fewer steps and a pending trial."""
    run = Run(tmp_path / "bits", "name: bits\nquestion: Does late QAT | shrink the gap?\ncontrol: int8\n")
    for seed, bpb in zip(SEEDS, (2.50, 2.52, 2.49), strict=True):
        run.finish(
            "int6", seed, bpb + 0.004 + seed * 1e-6, 0.004, sliding_bpb=bpb - 0.046 + seed * 1e-7, eval_stride=64
        )
        run.finish(
            "int8", seed, bpb, 0.0008 + seed * 1e-7, sliding_bpb=bpb - 0.05, eval_stride=64, model_bytes=12_000_000
        )
    for seed in (42, 1337):
        changes = {"steps": 250, "qat_on_step": 231, "qat_coverage": 0.25, "qat_is_live": False}
        run.finish("int4-mlp+qat", seed, 2.47 + seed * 1e-6, 0.01, sliding_bpb=2.41, eval_stride=64, **changes)
    run.entry("int4-mlp+qat", 7, "failed", failure_kind="diverged", reason="loss is not finite at step 120 [bold]")
    run.finish("huge", 42, 2.3, 0.0, sliding_bpb=2.2, eval_stride=64, model_bytes=16_000_000)
    run.entry("huge", 7, "running")
    return run.layout.root


def printed(root: Path | list[Path], width: int, control: str | None = None, *, wide: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_run(root, control, console, wide=wide)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_terminal_fits_and_names_hidden_columns(root: Path, width: int) -> None:
    text = printed(root, width)
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= width
    assert lines[0] == "bits"
    rows = [line.split()[0] for line in lines if line.startswith(("int", "huge"))]
    assert rows == 2 * ["int8", "int6", "int4-mlp+qat", "huge"]  # compared, then described; the control first
    assert ("Hidden at this width: " in text) == (width < 100)


def test_wide_hides_no_column(root: Path) -> None:
    text = printed(root, 60, wide=True)
    assert "Hidden at this width" in printed(root, 60)
    assert "Hidden at this width" not in text
    for heading in ("p (Holm)", "steps × ms", "% of cap", "coverage"):
        assert heading in text


def test_terminal_aligns_decimal_points(root: Path) -> None:
    lines = [line for line in printed(root, 120).splitlines() if line.startswith(("int8", "int6", "int4", "huge"))][4:]
    for number in range(2):  # float and post-quant bpb: every line has its point in the same place
        points = {[i for i, c in enumerate(line) if c == "."][number] for line in lines}
        assert len(points) == 1


def row(text: str, arm: str) -> str:
    """The arm's first line: its comparison."""
    return next(" ".join(line.split()) for line in text.splitlines() if line.strip("| ").startswith(arm))


def test_terminal_shows_everything_that_could_mislead(root: Path) -> None:
    lines = printed(root, 300).splitlines()
    text = " ".join(" ".join(lines).split())
    assert "Does late QAT | shrink the gap?" in text
    assert "int4-mlp+qat seed 7: failed (diverged): loss is not finite at step 120 [bold]" in text
    assert "running: huge seed 7" in text
    assert "sliding bpb against int8" in text
    assert row("\n".join(lines), "int6").endswith("LOSS [1] 0")
    assert "[1] skewed differences (skewness +0.71 over 3 pairs): p may be too small" in text
    assert row("\n".join(lines), "huge").startswith("huge 1 2.2000 -0.2500 – INFEASIBLE [")
    marks = row("\n".join(lines), "int4").partition("INCOMPLETE [")[2].partition("]")[0].split()
    notes = [line for line in lines for mark in marks if line.startswith(f"[{mark}]")]
    assert [note.partition("] ")[2] for note in notes] == [
        "1 failed",
        "QAT WAS NOT LIVE: it was enabled and changed nothing",
        "QAT covers 25% of the quantized elements",
        "16.7% fewer steps than the control",
    ]


def test_markdown_has_the_same_content(root: Path) -> None:
    terminal = printed(root, 300)
    markdown = render(root, "md")
    for line in markdown.splitlines():
        if line.startswith("- ["):
            assert line[2:].replace(r"\|", "|") in terminal
    for arm in ("int8", "int6", "int4-mlp+qat", "huge"):
        assert row(markdown, arm).replace("|", "").split() == row(terminal, arm).split()
    assert "2.5078" in markdown  # mean post-quant
    assert r"QAT \| shrink" in markdown
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in table[:6]}) == 1


@pytest.mark.parametrize("form", ["md", "latex"])
def test_files_hide_no_column(tmp_path: Path, form: str) -> None:
    run = Run(tmp_path / "bits", "name: bits\n")
    for arm in ("a", "four bits in the MLP, and late QAT, and a name that fills the line"):
        run.finish(arm, 42, 2.5, qat_on_step=3, qat_coverage=1.0, qat_is_live=True)
    text = render(run.layout.root, form)
    for heading in ("p (Holm)", "seeds needed", "QAT start, coverage"):
        assert heading in text
    assert "Hidden" not in text


def test_columns_are_hidden_on_a_terminal_in_the_order_of_their_worth(root: Path) -> None:
    hidden = []
    for width in range(100, 50, -1):
        block = " ".join(printed(root, width).partition("measured: ")[0].split())
        found = block.partition("Hidden at this width: ")[2].partition(" (use --wide)")[0]
        hidden += [found] if found and found not in hidden else []
    assert hidden[-1] == "seeds needed, test, p (Holm), sliding bpb"
    assert all(hidden[-1].startswith(shorter) for shorter in hidden)


def test_nothing_is_hidden_without_a_terminal(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_run(root)  # as in `pgray table RUN | less`, however narrow the screen is
    text = capsys.readouterr().out
    assert "Hidden" not in text
    assert "int4-mlp+qat seed 7: failed (diverged): loss is not finite at step 120 [bold]" in text  # on one line


def test_chosen_columns_metric_and_order(root: Path) -> None:
    text = render(root, "md", metric="post_quant_bpb", columns=["delta", "verdict", "steps", "hardware"], sort="-mean")
    table = [" ".join(line.replace("|", " ").split()) for line in text.splitlines() if line.startswith("|")][:6]
    assert table[0] == "arm delta verdict steps hardware"
    assert [line.split()[0] for line in table[2:]] == ["int6", "int8", "int4-mlp+qat", "huge"]
    assert table[2] == "int6 +0.0045 ±0.0019 INCONCLUSIVE 300 cpu x2"
    assert table[3] == "int8 – CONTROL 300 cpu x2"
    lines = overview(root, sort="delta")["arms"]
    assert [line["arm"] for line in lines] == ["huge", "int4-mlp+qat", "int8", "int6"]  # type: ignore[index,union-attr,attr-defined]
    csv = render(root, "csv", columns=["steps", "quant_gap"], sort="-steps").splitlines()
    assert csv[0] == "arm,seed,steps,quant_gap"
    bytes_table = printed(root, 200)
    assert "artifact_bytes against int8" in render(root, "md", metric="artifact_bytes").lower()
    assert "sliding bpb against int8" in bytes_table


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"columns": ["stepz"]}, "--columns: column: stepz: did you mean steps?"),
        ({"sort": "-delt"}, "--sort: column: delt: did you mean delta?"),
        ({"metric": "bpb"}, "--metric: metric: bpb: unknown metric; use one of "),
    ],
)
def test_a_wrong_choice(root: Path, chosen: Any, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        render(root, "md", **chosen)
    with pytest.raises(InputError, match="not a column of single trials"):
        render(root, "csv", columns=["delta"])


def test_two_runs_side_by_side(root: Path, tmp_path: Path) -> None:
    other = Run(tmp_path / "later", "name: later\ncontrol: int8\n")
    for seed in SEEDS:
        other.finish("int8", seed, 2.45 + seed * 1e-7, sliding_bpb=2.4 + seed * 1e-6, eval_stride=64)
    text = printed([root, other.layout.root], 200)
    assert "bits and later" in text
    assert "sliding bpb against bits/int8" in text
    assert row(text, "later/int8").startswith("later/int8 3 paired 2.4005")
    assert "sliding bpb against later/int8" in printed([root, other.layout.root], 200, "later/int8")
    assert pd.read_csv(io.StringIO(render([root, other.layout.root], "csv")))["arm"].nunique() == 5


def test_effects_of_a_cross_are_in_the_tables(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits", "name: bits\n")
    for bits in (4, 6):
        for decay in (0.9, 0.99):
            arm = f"quant.bits.mlp={bits},average.decay={decay}"
            for seed in SEEDS:
                name = run.finish(arm, seed, 2.5 + 0.01 * (bits == 4) + 1e-5 * seed * decay)
                config = {"quant": {"bits": {"mlp": bits}}, "average": {"decay": decay}}
                write_json(run.layout.trial(name).config, config)
    for text in (printed(run.layout.root, 200), render(run.layout.root, "md")):
        assert "quant.bits.mlp × average.decay" in text
        assert "-0.0100" in next(line for line in text.splitlines() if "6 against 4" in line)


def test_an_arm_that_is_not_compared_has_a_footnote_with_the_reason(root: Path) -> None:
    run = Run(root)
    for seed in SEEDS:
        run.finish("stride32", seed, 2.5, sliding_bpb=2.4, eval_stride=32)
    for text in (printed(root, 120), render(root, "md"), render(root, "latex").replace("\\_", "_").replace("& ", "")):
        mark = row(text, "stride32").partition("NOT COMPARABLE [")[2].partition("]")[0]
        assert f"[{mark}] stride32 seed 42 has eval_stride 32, int8 seed 42 has 64" in text


def test_another_control(root: Path) -> None:
    assert "sliding bpb against int6" in printed(root, 200, "int6")
    assert "Sliding bpb against int6" in render(root, "md", "int6")
    with pytest.raises(InputError, match="--control: arm: int5: not among the arms"):
        render(root, "md", "int5")
    with pytest.raises(InputError, match="use one of md, csv"):
        render(root, "html")


def test_csv_json_and_parquet_hold_every_trial_and_column(root: Path) -> None:
    trials = results.load(root)
    csv = pd.read_csv(io.StringIO(render(root, "csv")))
    assert list(csv.columns) == list(NAMES)
    assert csv["post_quant_bpb"].dropna().tolist() == trials["post_quant_bpb"].dropna().tolist()
    rows = json.loads(render(root, "json"))
    assert [list(row) for row in rows] == [list(NAMES)] * len(trials)
    assert rows[0]["post_quant_bpb"] == trials["post_quant_bpb"].iloc[0]
    assert rows[0]["ttt_bpb"] is None
    back = pd.read_parquet(io.BytesIO(render_parquet(root)))
    pd.testing.assert_frame_equal(back, trials)
    assert {c.name: str(back[c.name].dtype) for c in COLUMNS} == {c.name: c.dtype for c in COLUMNS}


def test_latex_is_escaped(root: Path) -> None:
    latex = render(root, "latex")
    assert latex.count(r"\\") == 5 + 5 + 8  # two tables with a heading, and the footnotes
    body = "\n".join(line for line in latex.splitlines() if not line.startswith("% "))
    assert "%" not in body.replace(r"\%", "")


def test_write_all_leaves_whole_files_and_nothing_else(root: Path) -> None:
    before = {path.name for path in root.iterdir()}
    write_all(root)
    write_all(root)
    assert {path.name for path in root.iterdir()} - before == {"table.md", "table.csv", "table.parquet"}
    assert (root / "table.md").read_text() == render(root, "md")


def test_overview_is_json(root: Path) -> None:
    shown = json.loads(json.dumps(overview(root)))
    assert shown["control"] == "int8"
    assert shown["metric"] == "sliding_bpb"
    assert [arm["arm"] for arm in shown["arms"]] == ["int8", "int6", "int4-mlp+qat", "huge"]
    assert shown["verdicts"][0] == "int8: sliding 2.4533, the control."
    assert (
        "(-0.0500 [-0.1771, +0.0771] against int8, p (Holm) 0.13): INCOMPLETE (2 of 3 seeds have a result)."
        in shown["verdicts"][2]
    )
    assert len(shown["trials"]) == 11


def test_post_quant_is_the_headline_without_sliding(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    run.finish("int8", 42, 2.5, sliding_bpb=2.4, eval_stride=64)
    run.finish("int6", 42, 2.6)
    assert overview(run.layout.root)["metric"] == "post_quant_bpb"
    assert "post-quant bpb against int8" in printed(run.layout.root, 200)
    assert row(printed(run.layout.root, 200), "int6").startswith("int6 1 2.6000 +0.1000")


def test_a_run_without_a_finished_trial(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits", "name: bits\n")
    assert "No trials yet" in printed(run.layout.root, 80)
    assert "No trials yet" in render(run.layout.root, "md")
    assert render(run.layout.root, "latex") == "% No trials yet.\n"
    write_all(run.layout.root)
    run.entry("int8", 42)
    run.entry("int6", 42, "failed", failure_kind="oom", reason="out of memory")
    text = printed(run.layout.root, 80)
    assert "int6 seed 42: failed (oom): out of memory" in text
    write_all(run.layout.root)


def test_rows_that_cannot_be_compared_do_not_stop_the_table(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    run.finish("int8", 42, 2.5)
    run.finish("int6", 42, 2.5, scored_tokens=7)
    write_all(run.layout.root)
    assert "NOT COMPARABLE" in (run.layout.root / "table.md").read_text()


def test_many_more_steps_are_a_factor(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    run.finish("int8", 42, 2.5, steps=100)
    run.finish("fast", 42, 2.5, steps=35_865)
    run.finish("slow", 42, 2.5, steps=150)
    text = printed(run.layout.root, 200)
    assert "358.6x the control's steps" in text
    assert "50.0% more steps than the control" in text


def test_unknown_qat_coverage_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    run.finish("int8", 42, 2.5)
    run.finish("qat", 42, 2.5, qat_on_step=6646)
    line = next(line for line in printed(run.layout.root, 200).splitlines() if line.startswith("qat ") and "×" in line)
    assert line.rstrip().endswith("6,646 unknown")


def test_superseded_trials_are_counted_in_a_remark(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    run.finish("int8", 42, 2.5)
    run.entry("int8", 42, "queued", trial_id="int8-s42-1")
    assert "1 trial of an earlier configuration is in table.csv" in printed(run.layout.root, 200)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    """A spreadsheet runs a cell that begins like a formula; a Markdown viewer runs HTML."""
    run = Run(tmp_path / "bits", "name: bits\nquestion: <script>alert(1)</script> R&D &lt;\n")
    attacks = ["=HYPERLINK(1)", "+1", "-2", "@SUM(1)", "<img src=x onerror=alert(1)>"]
    run.finish("int8", 42, 2.5)
    for arm in attacks:
        run.entry(arm, 42, "failed", failure_kind="oom", reason=f"{arm} <b>")
    cells = pd.read_csv(io.StringIO(render(run.layout.root, "csv")))
    assert cells["arm"].tolist() == ["int8", *(f"'{arm}" for arm in attacks[:4]), attacks[4]]
    assert cells["quant_gap"].tolist()[0] == 0.01  # numbers stay numbers
    markdown = render(run.layout.root, "md")
    assert "<" not in markdown
    assert "&lt;script>alert(1)&lt;/script> R&D &amp;lt;" in markdown


def test_arms_of_a_grid_have_labels_in_tables_and_names_in_files(tmp_path: Path) -> None:
    arms = [f"quant.bits.mlp={bits},average.kind={kind}" for bits in (4, 6) for kind in ("ema", "none")]
    run = Run(tmp_path / "bits", f"name: bits\ncontrol: {arms[0]}\nnames:\n  mlp=6 ema: six\n")
    for arm in arms:
        run.finish(arm, 42, 2.5)
    labels = ["mlp=4 ema", "mlp=4 average=none", "six", "mlp=6 average=none"]
    text = printed(run.layout.root, 80)
    assert "post-quant bpb against mlp=4 ema" in text
    assert [line for line in text.splitlines() if "quant.bits" in line] == []
    for label in labels:
        assert f"\n{label} " in text
    found = overview(run.layout.root, "six")  # a label names an arm on the command line
    assert found["control"] == arms[2]
    assert [(line["arm"], line["label"]) for line in found["arms"]] == [  # type: ignore[index,union-attr]
        (arms[i], labels[i]) for i in (2, 0, 1, 3)
    ]
    assert pd.read_csv(io.StringIO(render(run.layout.root, "csv")))["arm"].tolist() == arms

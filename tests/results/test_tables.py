"""The table in every format: the same content, whole files, and a terminal picture that fits."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import results
from results.schema import COLUMNS, NAMES
from results.tables import overview, print_rich, render, write_all
from tests.results.synthetic import Run
from trainer.errors import InputError

SEEDS = (42, 1337, 7)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four arms with every kind of trouble: a failure, a seed over the cap, dead QAT, fewer steps, a pending trial."""
    run = Run(tmp_path / "bits", "name: bits\nquestion: Does late QAT | shrink the gap?\ncontrol: int8\n")
    for seed, bpb in zip(SEEDS, (2.50, 2.52, 2.49), strict=True):
        run.finish("int6", seed, bpb + 0.004 + seed * 1e-6, 0.004, sliding_bpb=bpb - 0.046, eval_stride=64)
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


def printed(root: Path, width: int, control: str | None = None) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_rich(root, control, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_terminal_fits_and_says_what_it_left_out(root: Path, width: int) -> None:
    text = printed(root, width)
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= width
    assert lines[0] == "bits"
    rows = [line.split()[0] for line in lines if line.startswith(("int", "huge"))]
    assert rows == ["int8", "int6", "int4-mlp+qat", "huge"]  # the control first
    assert ("Too narrow for" in text) == (width < 120)


def test_terminal_aligns_decimal_points(root: Path) -> None:
    lines = [line for line in printed(root, 120).splitlines() if line.startswith(("int8", "int6", "int4", "huge"))]
    for number in range(2):  # float and post-quant bpb: every line has its point in the same place
        points = {[i for i, c in enumerate(line) if c == "."][number] for line in lines}
        assert len(points) == 1


def test_terminal_tells_everything_that_could_fool(root: Path) -> None:
    text = " ".join(printed(root, 300).split())
    assert "Does late QAT | shrink the gap?" in text
    assert "int4-mlp+qat seed 7: failed (diverged): loss is not finite at step 120 [bold]" in text
    assert "QAT WAS NOT LIVE" in text
    assert "QAT covers 25% of the quantized elements" in text
    assert "16.7% fewer steps than the control" in text
    assert "huge: sliding 2.2000" in text
    assert "INFEASIBLE" in text
    assert "running: huge seed 7" in text
    assert "against int8" in text
    assert "TOO FEW SEEDS (2 of 3)" in text


def test_markdown_says_the_same(root: Path) -> None:
    terminal = " ".join(printed(root, 300).split())
    markdown = render(root, "md")
    for line in markdown.splitlines():
        if line.startswith("- "):
            assert line[2:].replace(r"\|", "|") in terminal
    cells = [c.strip() for line in markdown.splitlines() if line.startswith("| int6") for c in line.split("|")]
    assert "2.5078" in cells  # mean post-quant
    assert r"QAT \| shrink" in markdown
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in table[:6]}) == 1


def test_another_control(root: Path) -> None:
    assert "against int6" in printed(root, 200, "int6")
    assert "against int6" in render(root, "md", "int6")
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
    back = pd.read_parquet(io.BytesIO(render(root, "parquet")))
    pd.testing.assert_frame_equal(back, trials)
    assert {c.name: str(back[c.name].dtype) for c in COLUMNS} == {c.name: c.dtype for c in COLUMNS}


def test_latex_is_escaped(root: Path) -> None:
    latex = render(root, "latex")
    assert latex.count(r"\\") == 5
    assert "%" not in latex.replace(r"\%", "").replace("% needs", "")


def test_write_all_leaves_whole_files_and_nothing_else(root: Path) -> None:
    before = {path.name for path in root.iterdir()}
    write_all(root)
    write_all(root)
    assert {path.name for path in root.iterdir()} - before == {"table.md", "table.csv", "table.parquet"}
    assert (root / "table.md").read_text() == render(root, "md")


def test_overview_is_json(root: Path) -> None:
    told = json.loads(json.dumps(overview(root)))
    assert told["control"] == "int8"
    assert told["metric"] == "sliding_bpb"
    assert [arm["arm"] for arm in told["arms"]] == ["int8", "int6", "int4-mlp+qat", "huge"]
    assert len(told["trials"]) == 11


def test_post_quant_is_the_headline_without_sliding(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    run.finish("int8", 42, 2.5, sliding_bpb=2.4, eval_stride=64)
    run.finish("int6", 42, 2.6)
    assert overview(run.layout.root)["metric"] == "post_quant_bpb"
    assert "post-quant 2.6000 (+0.1000 against int8)" in " ".join(printed(run.layout.root, 200).split())


def test_a_run_without_a_finished_trial(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits", "name: bits\n")
    assert "No trials yet" in printed(run.layout.root, 80)
    assert "No trials yet" in render(run.layout.root, "md")
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

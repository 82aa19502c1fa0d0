"""Imported rows in a run folder: importing twice changes nothing, clashes are refused, tables and `pgray show` list them."""

import json
import math
from pathlib import Path

import pytest

import results
from pgray.cli.entry import main
from pgray.execution.run_lock import hold_lock
from results.schema import NAMES
from tests.results import foreign_logs as made
from tests.results.synthetic import Run


@pytest.fixture
def logs(tmp_path: Path) -> dict[str, Path]:
    base = made.write(tmp_path / "base.log", made.family(975))
    better = [line.replace("1.1216", "1.1206").replace("1.12156083", "1.12056083") for line in made.family(975)]
    loss = 1.12056083 * math.log(2) * 151_080_363 / 62_021_632  # so that the loss matches the changed bpb
    other = [line.replace("1.89370347", f"{loss:.8f}").replace("1.8937", f"{loss:.4f}") for line in better]
    return {"base": base, "other": made.write(tmp_path / "other.log", other)}


def test_an_imported_folder_loads_and_has_a_table(
    logs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "pr975"
    assert made.imported(run, logs["base"], "base") == 0
    assert made.imported(run, logs["other"], "other", "--seed", "42") == 0
    trials = results.load(run)
    assert list(trials["arm"]) == ["base", "other"]
    assert list(trials["status"]) == ["finished"] * 2
    assert list(trials["sweep"]) == ["pr975"] * 2
    line = made.family(975).index(made.SLIDING[1]) + 1
    assert trials["source"].iloc[0] == f"imported: {logs['base']}:{line}"
    assert trials[["data_sha", "tokenizer_sha", "train_fingerprint", "git_sha"]].isna().all(axis=None)
    assert trials.attrs["problems"] == []
    for name in ("table.md", "table.csv", "table.parquet"):
        assert (run / name).is_file()
    capsys.readouterr()
    assert main(["table", str(run), "--control", "other", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["control"] == "other"
    (delta,) = [arm["delta"] for arm in table["arms"] if arm["arm"] == "base"]
    assert delta == pytest.approx(0.001)


def test_the_same_log_again_is_the_same_row(logs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    made.imported(run, logs["other"], "x")
    made.imported(run, logs["base"], "base")
    before = {path.name: path.read_bytes() for path in (run / "imported").iterdir()}
    assert made.imported(run, logs["base"], "base") == 0
    assert {path.name: path.read_bytes() for path in (run / "imported").iterdir()} == before
    assert list(results.load(run)["arm"]) == ["x", "base"]


@pytest.mark.parametrize(
    ("log", "arguments", "said"),
    [
        ("other", [], "base already has this seed"),
        ("two", ["--seed", "5"], "contradicts --seed 5"),
        ("two", [], "select one with --only N, N = 1 to 2"),
        ("two", ["--only", "3"], "these files hold 2 runs"),
        ("stdout", [], "give it with --seed"),
        ("stdout", ["--seed", "-1"], "give a whole number from 0"),
        ("nowhere", [], "No such file"),
        ("stdout", ["--seed", "3", "--arm", " "], "give the name"),
    ],
)
def test_an_error_is_one_line(
    log: str, arguments: list[str], said: str, logs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    made.imported(run, logs["base"], "base")
    changed = [line.replace("1.1450", "1.1451") for line in made.family(975)]
    made.write(tmp_path / "two.log", made.family(975), changed)
    made.write(tmp_path / "stdout.log", made.family(1032))
    before = sorted((run / "imported").iterdir())
    capsys.readouterr()
    assert made.imported(run, tmp_path / f"{log}.log", "base", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert sorted((run / "imported").iterdir()) == before


def test_a_refused_import_leaves_no_folder(tmp_path: Path) -> None:
    log = made.write(tmp_path / "x.log", made.family(1032))
    assert made.imported(tmp_path / "run", log, "a") == 2
    assert not (tmp_path / "run").exists()


def test_a_log_with_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = made.write(tmp_path / "x.log", made.family(975), made.family(51), made.family(1002))
    assert made.imported(tmp_path / "run", log, "a", "--json") == 0
    printed = json.loads(capsys.readouterr().out)["imported"]
    assert [row["seed"] for row in printed] == [42, 1337, 1]
    for row in printed:
        assert set(row["sources"]) == set(row["columns"])
        assert row["sources"]["seed"].startswith(f"{log}:")
    assert made.imported(tmp_path / "run", log, "b", "--only", "2") == 0
    trials = results.load(tmp_path / "run")
    assert list(zip(trials["arm"], trials["seed"], strict=True)) == [("a", 42), ("a", 1337), ("a", 1), ("b", 1337)]


def test_a_locked_run_is_left_alone(logs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hold_lock(tmp_path / "run"):
        assert made.imported(tmp_path / "run", logs["base"], "base") == 2
    assert "held by process" in capsys.readouterr().err


def test_imported_rows_and_trials_run_here_in_one_folder(
    logs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    run.finish("int8", 42, sliding_bpb=2.4)
    assert made.imported(run.layout.root, logs["base"], "theirs") == 0
    trials = results.load(run.layout.root)
    assert list(trials["arm"]) == ["int8", "theirs"]
    assert list(trials["sweep"]) == ["bits", "bits"]
    assert made.imported(run.layout.root, logs["base"], "int8") == 2
    assert "int8 already has this seed (int8-s42-0)" in capsys.readouterr().err
    assert main(["table", str(run.layout.root), "--json"]) == 0
    arms = json.loads(capsys.readouterr().out)["arms"]
    assert [arm["verdict"] for arm in arms] == ["CONTROL", "NOT COMPARABLE"]


def test_a_trial_run_here_later_supersedes_an_imported_one(logs: dict[str, Path], tmp_path: Path) -> None:
    made.imported(tmp_path / "run", logs["base"], "int8")
    run = Run(tmp_path / "run")
    run.finish("int8", 42, sliding_bpb=2.4)
    trials = results.load(run.layout.root)
    assert list(trials["is_current"]) == [True, False]
    assert trials["reason"].iloc[1] == "superseded by int8-s42-0, run here"
    assert results.ablation(trials)["mean"].tolist() == [2.4]


def test_a_trial_run_here_supersedes_an_imported_one_even_after_its_arm_was_edited(
    logs: dict[str, Path], tmp_path: Path
) -> None:
    made.imported(tmp_path / "run", logs["base"], "int8")
    run = Run(tmp_path / "run")
    run.entry("int8", 42, "failed", config_sha="old")
    run.entry("int8", 7, "queued", config_sha="new")
    assert results.load(run.layout.root)["is_current"].tolist() == [False, True, False]


def test_a_broken_row_is_listed_as_a_problem(logs: dict[str, Path], tmp_path: Path) -> None:
    made.imported(tmp_path / "run", logs["base"], "base")
    (tmp_path / "run/imported/x.json").write_text("{}")
    trials = results.load(tmp_path / "run")
    assert len(trials) == 1
    assert "x.json: not an imported row" in trials.attrs["problems"][0]


def test_a_changed_row_is_listed_as_a_problem(logs: dict[str, Path], tmp_path: Path) -> None:
    assert made.imported(tmp_path / "run", logs["base"], "base") == 0
    (path,) = (tmp_path / "run/imported").glob("*.json")
    assert results.load(tmp_path / "run").attrs["problems"] == []
    path.write_text(path.read_text().replace("1.1215", "1.1015"))
    (problem,) = results.load(tmp_path / "run").attrs["problems"]
    assert problem == f"run/imported/{path.name} has been changed since it was written; import the log again"


def test_a_run_with_a_sliding_score_alone_is_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.imported(tmp_path / "run", made.write(tmp_path / "x.log", made.family(1002)), "x")
    capsys.readouterr()
    main(["table", str(tmp_path / "run"), "--format", "md"])
    text = capsys.readouterr().out
    assert "1.1703" in text
    assert "Trials without a result" not in text


def test_show_an_imported_trial(logs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.imported(tmp_path / "run", logs["base"], "base")
    capsys.readouterr()
    assert main(["show", str(tmp_path / "run"), "base", "--json"]) == 0
    lines = {line["column"]: line for line in json.loads(capsys.readouterr().out)}
    assert list(lines) == list(NAMES)
    number = made.family(975).index(made.PLAIN[1]) + 1
    assert lines["post_quant_bpb"] == {
        "column": "post_quant_bpb", "value": 1.14500258, "unit": "bits per byte", "source": f"{logs['base']}:{number}",
        "why": None,
    }  # fmt: skip
    assert lines["entropy_bytes"]["why"] == "the published scripts do not measure it"
    assert all((line["source"] is None) == (line["value"] is None) != (line["why"] is None) for line in lines.values())
    assert main(["show", str(tmp_path / "run"), "base"]) == 0
    assert f":{number}" in capsys.readouterr().out


def test_show_ones_own_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "run")
    done = run.finish("int8", 1)
    waiting = run.entry("int4", 1)
    assert main(["show", str(run.layout.root), done, "--json"]) == 0
    lines = {line["column"]: line for line in json.loads(capsys.readouterr().out)}
    assert lines["post_quant_bpb"]["source"] == str(run.layout.trial(done).result)
    assert (lines["git_sha"]["value"], lines["git_sha"]["source"]) == ("abc", str(run.layout.trial(done).result))
    assert lines["status"]["source"] == f"{run.layout.ledger}:1"
    assert lines["cost_usd"]["why"] == "unknown"
    assert main(["show", str(run.layout.root), waiting, "--json"]) == 0
    lines = {line["column"]: line for line in json.loads(capsys.readouterr().out)}
    assert lines["post_quant_bpb"]["why"] == "the trial is queued"
    assert main(["show", str(run.layout.root), "int"]) == 2
    assert "more than one trial; use one of int8-s1-0, int4-s1-0" in capsys.readouterr().err
    other = run.finish("int8-more", 1)
    assert other.startswith("int8")
    assert (
        main(["show", str(run.layout.root), "int8"]) == 0
    )  # the name of an arm, though the start of another trial's id

"""Small verbs of daily use: init, list, --version, runs by name, data found from any folder."""

import json
import os
import time
from pathlib import Path

import pytest

from pgray.cli.entry import main
from tests.results.synthetic import Run


@pytest.fixture
def project(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with data, sweeps and two runs, and the working folder elsewhere."""
    root, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / "data").mkdir(parents=True)
    (root / "data/embedded").symlink_to(data)
    for name, age_s in (("old", 7200), ("new", 0)):
        run = Run(root / "runs" / name, f"name: {name}\ncontrol: int8\n")
        for arm, bpb in (("int8", 2.5), ("int6", 2.6)):
            for seed in (1, 2, 3):
                run.finish(arm, seed, bpb + seed * 1e-4 + (arm == "int6") * seed * 1e-5)
        os.utime(run.layout.ledger, (time.time() - age_s,) * 2)
    monkeypatch.chdir(elsewhere)
    return root


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "pgray 0.1.0\n"


def test_init_writes_a_sweep_that_can_be_planned(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "sweeps" / "Late QAT.yaml"
    assert main(["init", str(path)]) == 0
    assert "name: late-qat " in path.read_text()
    assert "my-sweep" not in path.read_text()
    assert main(["plan", str(path), "--set", "model.vocab_size=320"]) == 0  # the data are found above the file
    assert "9 trials in 6 jobs" in capsys.readouterr().out
    assert main(["init", str(path)]) == 2
    assert capsys.readouterr().err == f"error: {path}: file: exists: give another name; nothing has been written\n"
    assert main(["init", "sweep"]) == 2


def test_data_are_found_from_any_working_folder(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial_ids(*more: str) -> list[str]:
        assert main(["plan", str(path), "--json", "--set", "model.vocab_size=320", *more]) == 0
        return [trial["trial_id"] for trial in json.loads(capsys.readouterr().out)["trials"]]

    path = project / "sweeps/x.yaml"
    assert main(["init", str(path)]) == 0
    capsys.readouterr()
    here = trial_ids()
    Path("data/embedded").mkdir(parents=True)  # of another project: the sweep does not mean it
    assert trial_ids() == here
    monkeypatch.chdir(project)
    assert trial_ids() == trial_ids("--set", "data.path=data/embedded") == here  # the shell's paths are the shell's
    monkeypatch.chdir("sweeps")
    assert main(["plan", str(path), "--set", "data.path=data/embedded"]) == 2


def test_runs_by_name(project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    for arguments in (["table", "new"], ["table", "new", "old"], ["status", "new"], ["report", "new"]):
        assert main(arguments) == 0, capsys.readouterr().err
    assert (project / "runs/new/report.html").exists()
    assert main(["table", "newer"]) == 2
    assert "no such run folder, and none of that name in runs/; did you mean new?" in capsys.readouterr().err
    Run(project / "new", "name: new\n").finish("other", 1)
    capsys.readouterr()
    assert main(["table", "new"]) == 0  # a path that exists is that path
    assert "other" in capsys.readouterr().out


def test_list(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "runs/broken").mkdir()
    (project / "runs/broken/ledger.jsonl").write_text("garbage\n")
    assert main(["list", "--runs", str(project / "runs"), "--json"]) == 0
    found = {run["run"]: run for run in json.loads(capsys.readouterr().out)}
    assert list(found)[-1] == "old"
    assert found["old"]["verdict"] == "LOSS: int6"
    assert found["old"]["trials"] == {"finished": 6}
    assert found["old"]["age_s"] == pytest.approx(7200, abs=60)
    assert main(["list", "--runs", str(project / "runs")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("old"))
    assert " ".join(line.split()) == "old 2 h 6 finished LOSS: int6"
    assert main(["list"]) == 2  # there is no folder runs here


def test_status_cuts_no_trial_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "x")
    name = run.entry("a" * 60, 1, trial_id=f"{'a' * 60}-s1-0123456789", reason="r" * 90)
    assert main(["status", str(run.layout.root)]) == 0
    assert name in capsys.readouterr().out


def test_a_metric_that_no_trial_has_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else every arm has TOO FEW SEEDS, and more seeds would not help."""
    folder = str(project / "runs/old")
    for metric, fix in (("ttt_bpb", "no finished trial has it; use "), ("slidin_bpb", "did you mean sliding_bpb?")):
        assert main(["table", folder, "--metric", metric]) == 2
        assert fix in capsys.readouterr().err


def test_a_difference_over_some_of_the_seeds_says_over_how_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run", "name: run\ncontrol: a\n")
    run.finish("a", 1, 2.0)
    for seed in (1, 2, 3):
        run.finish("b", seed, 2.1)
    assert main(["table", str(run.layout.root)]) == 0
    assert "  1 of 3  " in capsys.readouterr().out

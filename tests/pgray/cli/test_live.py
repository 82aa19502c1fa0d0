"""What can be seen of a sweep before and while it runs: planned trials, their own times, labels, logs that do not exist yet."""

import json
import threading
import time
from pathlib import Path

import pytest

from pgray.cli.entry import main
from pgray.execution.run_lock import hold_lock
from pgray.store.planned import PlannedRow, write_planned
from results.loading.lookup import find_trial, shown_ids
from tests.pgray.conftest import wait_for
from tests.results.synthetic import Run
from trainer.errors import InputError
from trainer.records.files import write_json

LONG = "quant.bits.mlp=4,average.kind=ema"


def status(run: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    assert main(["status", str(run), "--json"]) == 0
    return {trial["trial_id"]: trial for trial in json.loads(capsys.readouterr().out)["trials"]}


def test_status_lists_planned_trials_before_there_is_a_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "x"
    with hold_lock(root):
        write_planned(root, [PlannedRow("a-s1-0", "a", 1), PlannedRow("b-s1-0", "b", 1)])
        found = status(root, capsys)
        assert {name: trial["status"] for name, trial in found.items()} == {"a-s1-0": "planned", "b-s1-0": "planned"}
        assert main(["status", str(root)]) == 0
        assert "2 planned; a driver is running" in capsys.readouterr().out
        assert main(["list", "--runs", str(tmp_path)]) == 0
        capsys.readouterr()
        Run(root).entry("a", 1, "running", job_id="f-0")
        found = status(root, capsys)
        assert {name: trial["status"] for name, trial in found.items()} == {"a-s1-0": "running", "b-s1-0": "planned"}


def test_status_counts_the_proposals_that_a_search_has_still_to_make(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "x", "name: x\nsearch: {trials: 5}\n")
    run.entry("t000", 1, changes={"quant.bits.mlp": 4})
    assert main(["status", str(run.layout.root)]) == 0
    assert "1 queued; 4 proposals to come; no driver" in capsys.readouterr().out
    write_json(run.layout.study, {"why_exhausted": "all drawn"})
    assert main(["status", str(run.layout.root)]) == 0
    assert "to come" not in capsys.readouterr().out


def test_status_shows_a_finished_trials_own_time_and_the_exports_of_a_running_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "x")
    for arm in ("a", "b"):
        run.entry(arm, 1, "running", job_id="f-0")
    run.finish("a", 1, wall_s=95.0)
    with hold_lock(run.layout.root):
        run.entry("a", 1, "running", job_id="f-0")
        run.layout.trained("fp1").record.parent.mkdir(parents=True)
        run.layout.trained("fp1").record.touch()
        found = status(run.layout.root, capsys)
        assert [(t["num_exported"], t["num_exports"]) for t in found.values()] == [(1, 2), (1, 2)]
        assert all(isinstance(t["running_s"], float) for t in found.values())
        run.entry("a", 1, "finished", job_id="f-0")
        found = status(run.layout.root, capsys)
        assert (found["a-s1-0"]["wall_s"], found["b-s1-0"]["wall_s"]) == (95.0, None)
        assert main(["status", str(run.layout.root)]) == 0
        shown = capsys.readouterr().out
        assert "1 min 35 s" in shown
        assert "exported 1/2" in shown


def test_status_shows_labels_for_long_ids_and_logs_understands_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "x")
    for arm in (LONG, "quant.bits.mlp=6,average.kind=ema"):
        for seed in (1, 12):
            run.entry(arm, seed, trial_id=f"{arm}-s{seed}-0123456789")
    assert main(["status", str(run.layout.root)]) == 0
    shown = capsys.readouterr().out
    assert "mlp=4-s1 " in shown
    assert LONG not in shown
    run.layout.trial(f"{LONG}-s1-0123456789").log.parent.mkdir(parents=True)
    run.layout.trial(f"{LONG}-s1-0123456789").log.write_text("step=6\n")
    capsys.readouterr()
    assert main(["logs", str(run.layout.root), "mlp=4-s1"]) == 0
    assert capsys.readouterr().out == "step=6\n"


def test_shown_ids_differ_and_are_found() -> None:
    arms = {f"{LONG}-s1-0000000000": LONG, f"{LONG}-s1-1111111111": LONG, "int8-s1-0000000000": "int8"}
    labels = {name: {LONG: "mlp=4 ema"}.get(arm, arm) for name, arm in arms.items()}
    shown = shown_ids(labels)
    assert list(shown.values()) == ["mlp=4 ema-s1-0000000000", "mlp=4 ema-s1-1111111111", "int8-s1-0000000000"]
    for name, text in shown.items():
        assert find_trial(text, arms, {LONG: "mlp=4 ema"}) == name
    with pytest.raises(InputError, match="more than one trial"):
        find_trial("mlp=4 ema-s1", arms, {LONG: "mlp=4 ema"})


@pytest.mark.parametrize("trial", ["a", "a-s1-0", "t001"])
def test_logs_f_waits_for_a_trial_that_has_not_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trial: str
) -> None:
    """Planned only, or a proposal of a search that is to come: it is queued, begins and ends while `logs -f` waits."""
    monkeypatch.setattr("pgray.cli.logs._POLL_S", 0.02)
    root, arm = tmp_path / "x", trial[:4] if trial == "t001" else "a"
    with hold_lock(root):
        if trial == "t001":
            run = Run(root, "name: x\nsearch: {trials: 2}\n")
            run.entry("t000", 1, changes={})
        else:
            write_planned(root, [PlannedRow("a-s1-0", "a", 1)])
        codes: list[int] = []
        follower = threading.Thread(target=lambda: codes.append(main(["logs", str(root), trial, "-f"])))
        follower.start()
        time.sleep(0.2)
        assert not codes
        run = Run(root, "name: x\nsearch: {trials: 2}\n")
        name = run.entry(arm, 1, changes={} if trial == "t001" else None)
        run.entry(arm, 1, "running")
        run.layout.trial(name).log.parent.mkdir(parents=True)
        run.layout.trial(name).log.write_text("step=1\n")
        time.sleep(0.1)
        assert not codes
        run.entry(arm, 1, "finished")
        wait_for(lambda: codes, 10)
        follower.join()
    assert codes == [0]
    printed = capsys.readouterr()
    assert printed.out == "step=1\n"
    assert "waiting" in printed.err


def test_logs_without_a_log_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "x")
    run.entry("a", 1)
    assert main(["logs", str(run.layout.root), "a"]) == 0
    assert capsys.readouterr().err == "a-s1-0 has no log yet: it is queued; no driver is running\n"
    assert main(["logs", str(run.layout.root), "t007", "-f"]) == 2

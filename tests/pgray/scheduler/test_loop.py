"""The loop between executor and queue, without Ray: draining, stopping, paused writes, tables, and the driver log."""

import errno
import logging
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pgray.execution.run_lock import is_held
from pgray.scheduler.driver_log import open_driver_log
from pgray.scheduler.loop import SweepLoop
from pgray.scheduler.progress import EndedTrial, ProgressReporter
from pgray.scheduler.time_left import JobToCome
from pgray.store.ledger import Ledger
from pgray.store.planned import read_planned
from tests.pgray.conftest import RecordedProgress
from tests.pgray.fake_executor import FakeExecutor, send
from tests.pgray.scheduler.test_driver import drive, states
from trainer.errors import InputError
from trainer.records.files import read_json
from trainer.records.job import Job
from trainer.records.layout import RunLayout

pytestmark = pytest.mark.usefixtures("executor")
WriteSweep = Callable[..., Path]
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (.*)")
HANGS = "optim: {ns_steps: 1, muon_momentum_steps: 0}"


def log_lines(root: Path) -> list[str]:
    """The lines of the driver log without their times and job numbers."""
    found = [LINE.fullmatch(line) for line in RunLayout(root).driver_log.read_text().splitlines()]
    assert all(found)
    return [re.sub(r"\b[0-9a-f]{12,}-(\d+)", r"JOB-\1", match.group(1)) for match in found if match]


def test_ctrl_c_drains(write_sweep: WriteSweep, tmp_path: Path, executor: FakeExecutor) -> None:
    executor.at_poll = {3: send(signal.SIGINT)}
    reporter = RecordedProgress()
    outcome = drive(write_sweep(seeds="[1, 2]"), tmp_path / "runs", reporter=reporter)
    assert outcome.exit_code == 130
    assert states(outcome.run_root) == {
        (arm, seed): "finished" if seed == 1 else "queued" for arm in ("int8", "int6", "qat") for seed in (1, 2)
    }
    assert "Waiting for 2 jobs. Ctrl-C again stops them; the next run resumes them." in reporter.lines
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_running_jobs_and_the_next_run_resumes(
    write_sweep: WriteSweep, tmp_path: Path, executor: FakeExecutor, second: signal.Signals
) -> None:
    path = write_sweep(seeds="[1, 2]")
    executor.at_poll = {3: send(signal.SIGINT), 4: send(second)}
    reporter = RecordedProgress()
    outcome = drive(path, tmp_path / "runs", reporter=reporter)
    assert (outcome.exit_code, outcome.counts) == (130, {"queued": 6})
    entries = Ledger(RunLayout(outcome.run_root).ledger).states().values()
    assert {entry.reason for entry in entries if entry.attempt} == {"interrupted before it ended"}
    assert "Stopping 2 jobs." in reporter.lines
    assert not is_held(outcome.run_root)
    executor.at_poll = {}
    assert drive(path, tmp_path / "runs").counts == {"finished": 6}


def test_sigterm_stops_at_once(write_sweep: WriteSweep, tmp_path: Path, executor: FakeExecutor) -> None:
    executor.at_poll = {2: send(signal.SIGTERM)}
    reporter = RecordedProgress()
    outcome = drive(write_sweep(seeds="[1]"), tmp_path / "runs", reporter=reporter)
    assert (outcome.exit_code, outcome.counts) == (130, {"queued": 3})
    assert not any("Waiting for" in line for line in reporter.lines)


def test_a_dead_worker_is_infra_and_is_retried(
    write_sweep: WriteSweep, tmp_path: Path, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgray.execution.launchers.base.LaunchSettings.end_patience_s", 0.0)
    executor.lost_workers = {"qat"}
    path = write_sweep(seeds="[1]")
    path.write_text(path.read_text() + "failures: {retries: {infra: 1}}\n")
    outcome = drive(path, tmp_path / "runs")
    assert outcome.counts == {"finished": 2, "failed": 1}
    (row,) = [e for e in Ledger(RunLayout(outcome.run_root).ledger).states().values() if e.arm == "qat"]
    assert (row.failure_kind, row.attempt) == ("infra", 2)
    assert "the node of the worker is gone" in str(row.reason)


def test_a_disk_that_fills_up_pauses_and_stops(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sweep(seeds="[1]")
    append = Ledger.append

    def fail(self: Ledger, *entries: object) -> None:
        if any(getattr(entry, "state", "") == "finished" for entry in entries):
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, *entries)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", fail)
        outcome = drive(path, tmp_path / "runs")
    assert (outcome.exit_code, outcome.is_interrupted) == (4, False)
    assert str(outcome.paused).startswith("the disk is full")
    assert "finished" not in outcome.counts
    assert drive(path, tmp_path / "runs").counts == {"finished": 3}


def test_tables_are_rewritten_while_the_sweep_runs(
    write_sweep: WriteSweep, tmp_path: Path, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgray.scheduler.loop._TABLE_SHARE", 1e9)
    executor.slots = 1
    sizes: list[int] = []
    table = RunLayout(tmp_path / "runs" / "test").table("csv")
    executor.at_poll = {
        poll: lambda: sizes.append(table.read_text().count(",finished,") if table.exists() else 0)
        for poll in range(1, 200)
    }
    drive(write_sweep(seeds="[1]"), tmp_path / "runs")
    assert sizes == sorted(sizes)
    assert set(sizes) == {0, 2}, "int8 and int6 share a job; the last job ends the sweep"


def test_tables_take_a_small_share_of_the_time(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgray.scheduler.loop._TABLE_SHARE", 1e-9)
    written: list[float] = []
    collect = SweepLoop._collect

    def count(self: SweepLoop, job_id: str) -> None:
        before = self._next_table_at
        collect(self, job_id)
        written.append(self._next_table_at - before)

    monkeypatch.setattr(SweepLoop, "_collect", count)
    drive(write_sweep(seeds="[1, 2]"), tmp_path / "runs")
    assert [bool(seconds) for seconds in written] == [True, False, False, False]


@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_run_folder_that_has_gone_ends_the_run_and_is_not_made_again(
    write_sweep: WriteSweep, tmp_path: Path, executor: FakeExecutor, is_deleted: bool
) -> None:
    root = tmp_path / "runs" / "test"
    executor.at_poll = {3: lambda: shutil.rmtree(root) if is_deleted else root.rename(tmp_path / "moved")}
    outcome = drive(write_sweep(seeds="[1]"), tmp_path / "runs")
    assert outcome.exit_code == 4
    assert str(outcome.paused).startswith(f"the run folder has gone: {root}")
    assert not root.exists()
    assert is_deleted or {e.state for e in Ledger(RunLayout(tmp_path / "moved").ledger).states().values()} == {
        "running"
    }


# The driver log.


def test_one_line_per_decision_in_order(write_sweep: WriteSweep, tmp_path: Path, executor: FakeExecutor) -> None:
    executor.slots = 1
    arms = "  int8: {}\n  flaky: {optim: {matrix_lr: 0.041, muon_momentum_steps: 10}}\n"
    arms += "  int4: {quant.bits.mlp: 4, optim.matrix_lr: 0.042}\n"
    path = write_sweep(arms=arms, seeds="[1, 2]", set=HANGS)
    path.write_text(path.read_text() + "kill: [{arm: int4, metric: post_quant_bpb, worse_than_control_by: 0.05}]\n")
    outcome = drive(path, tmp_path / "runs")
    assert outcome.exit_code == 0
    lines = log_lines(outcome.run_root)
    words = [" ".join(line.split()[:2]) for line in lines]
    assert words[0] == "start: process"
    plan = next(line for line in lines if " trials: " in line)
    assert plan.startswith("6 trials: 0 finished, 6 to run in 6 jobs, 2 at a time on 4 GPUs and 2 CPUs on 1 node")
    shown = [line for line in lines[lines.index(plan) + 1 :] if not line.startswith("warning")]
    assert shown[:6] == [
        "launched job JOB-0: int8 seed 1",
        "ended job JOB-0, int8 seed 1: finished",
        "launched job JOB-0: flaky seed 1",
        "ended job JOB-0, flaky seed 1: failed (infra): killed by SIGKILL; last line: step step=2",
        shown[4],
        "launched job JOB-0: int4 seed 1",
    ]
    assert shown[4].startswith("retried flaky-")
    assert shown[4].endswith(": infra, retried (1): killed by SIGKILL; last line: step step=2")
    assert shown[6] == "ended job JOB-0, int4 seed 1: finished"
    assert re.match(r"skipped int4-\S+: post_quant_bpb 1.3000 is worse than the control's 1.2010 by 0.0990", shown[7])
    assert shown[-1] == "end: 5 finished, 1 killed; exit code 0"
    assert not logging.getLogger().handlers or all(
        "driver.log" not in str(handler) for handler in logging.getLogger().handlers
    )


def test_a_second_run_appends_and_writes_each_line_once(write_sweep: WriteSweep, tmp_path: Path) -> None:
    path = write_sweep(seeds="[1]")
    root = drive(path, tmp_path / "runs").run_root
    first = log_lines(root)
    drive(path, tmp_path / "runs")
    again = log_lines(root)
    assert again[: len(first)] == first
    assert [line for line in again[len(first) :] if not line.startswith(("start:", "warning:"))] == [
        "3 trials: 3 finished, nothing to run", "end: 3 finished; exit code 0",
    ]  # fmt: skip


def test_signals_pauses_and_kills_are_logged(write_sweep: WriteSweep, tmp_path: Path, executor: FakeExecutor) -> None:
    executor.at_poll = {3: send(signal.SIGINT), 4: send(signal.SIGINT)}
    drive(write_sweep(seeds="[1]"), tmp_path / "runs")
    drained = log_lines(tmp_path / "runs" / "test")
    waiting = drained.index("Waiting for 2 jobs. Ctrl-C again stops them; the next run resumes them.")
    assert drained[waiting + 1] == "Stopping 2 jobs."
    assert drained[-1].endswith("exit code 130")

    executor.at_poll = {}
    failing = write_sweep(name="failing", seeds="[1]", set="optim: {ns_steps: 1, muon_momentum_steps: 11}")
    drive(failing, tmp_path / "runs")
    paused = [line for line in log_lines(tmp_path / "runs" / "failing") if line.startswith("paused: ")]
    assert paused == ["paused: a job could not write: OSError: [Errno 28] No space left on device"]

    bad = write_sweep(name="bad", arms="  int8: {}\n  bad: {optim.matrix_lr: 0.14}\n", seeds="[1]", iterations=40)
    rule = "kill: [{metric: train_loss_nats, worse_than_control_by: 0.5, after_frac: 0.1}]\n"
    bad.write_text(bad.read_text() + rule)
    assert drive(bad, tmp_path / "runs").counts == {"finished": 1, "killed": 1}
    killed = [line for line in log_lines(tmp_path / "runs" / "bad") if line.startswith("killed job ")]
    assert len(killed) == 1
    assert "train_loss_nats" in killed[0]


def test_a_log_that_cannot_be_written_raises_nothing(tmp_path: Path) -> None:
    with open_driver_log(Path("/dev/full")) as full:
        full.info("lost")
    with open_driver_log(tmp_path / "missing" / "driver.log") as missing:
        missing.info("lost")


def test_a_full_log_is_rotated_and_a_crash_is_logged(tmp_path: Path) -> None:
    path = tmp_path / "driver.log"
    with open_driver_log(path) as log:
        for _ in range(6):
            log.info("x" * 900_000)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"driver.log{end}" for end in ("", ".1", ".2", ".3")]
    with pytest.raises(ZeroDivisionError), open_driver_log(path):
        _ = 1 / 0
    assert "ZeroDivisionError" in path.read_text()


def test_the_reporter_gets_labels_own_times_and_the_jobs_to_come(write_sweep: WriteSweep, tmp_path: Path) -> None:
    class Shown(ProgressReporter):
        def __init__(self) -> None:
            self.labels: list[str] = []
            self.trials: list[EndedTrial] = []
            self.to_come: list[list[JobToCome]] = []

        def started(self, job: Job, label: str) -> None:
            self.labels.append(label)

        def planned(self, num_jobs: int, to_come: Sequence[JobToCome] = ()) -> None:
            assert num_jobs == 2
            self.to_come.append(list(to_come))

        def ended(self, job_id: str, trials: Sequence[EndedTrial]) -> None:
            self.trials += trials

    arms = "  quant.bits.mlp=8: {quant.bits.mlp: 8}\n  quant.bits.mlp=6: {quant.bits.mlp: 6}\n"
    path, shown = write_sweep(arms=arms, seeds="[1, 2]"), Shown()
    path.write_text(path.read_text().replace("control: int8", "control: mlp=8"))
    outcome = drive(path, tmp_path / "runs", reporter=shown)
    assert shown.labels == ["mlp=8, mlp=6 seed 1", "mlp=8, mlp=6 seed 2"]
    assert shown.to_come[0] == [JobToCome(trains=True, num_trials=2)]
    assert shown.to_come[-1] == []
    layout = RunLayout(outcome.run_root)
    own_s = [read_json(layout.trial(trial.entry.trial_id).result)["wall_s"] for trial in shown.trials]
    assert [(trial.label, trial.own_s) for trial in shown.trials] == list(
        zip(["mlp=8", "mlp=6"] * 2, own_s, strict=True)
    )


def test_planned_trials_can_be_read_while_ray_starts_and_a_refused_run_leaves_no_folder(
    write_sweep: WriteSweep, tmp_path: Path, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, seen = tmp_path / "runs" / "test", list[str]()

    def refuse(*_: object) -> None:
        seen.extend(row.arm for row in read_planned(root, ()))
        raise InputError("x", "resources", "9", "fits on no node")

    monkeypatch.setattr(executor, "connect", refuse)
    with pytest.raises(InputError):
        drive(write_sweep(seeds="[1]"), tmp_path / "runs")
    assert seen == ["int8", "int6", "qat"]
    assert not root.exists()

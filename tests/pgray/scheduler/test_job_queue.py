"""`JobQueue` by itself: which jobs of one training run may run side by side, and what a job reserves. And `pgray retry`."""

from collections.abc import Callable
from functools import partial
from logging import Logger
from pathlib import Path

import pytest

import pgray.cli.run
import pgray.scheduler.queue
from pgray.cli.entry import main
from pgray.execution.launchers.base import LaunchSettings
from pgray.execution.run_lock import LOCK_FILE
from pgray.planning.decision import decide
from pgray.planning.planner import make_plan
from pgray.scheduler.curve_monitor import CurveMonitor
from pgray.scheduler.driver import run_sweep
from pgray.scheduler.ledger_writer import LedgerWriter
from pgray.scheduler.loop import SweepLoop
from pgray.scheduler.progress import ProgressReporter
from pgray.scheduler.queue import JobQueue
from pgray.scheduler.signals import Interrupt
from pgray.spec.sweep import Sweep
from pgray.store.ledger import Ledger
from tests.pgray.conftest import PLAIN
from tests.pgray.scheduler.test_driver import drive
from trainer.records.files import write_json
from trainer.records.layout import RunLayout

WriteSweep = Callable[..., Path]


@pytest.fixture
def queue(write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobQueue:
    """A queue with two jobs of one training run, `int8` and `int6`, and one of another, on 2 GPUs; nothing is trained."""
    path = write_sweep(seeds="[1]")
    path.write_text(path.read_text() + "resources: {gpus: 2}\nnproc: 1\nbudget: {gpu_hours: 1.0}\n")
    sweep, layout = Sweep.from_yaml(path), RunLayout(tmp_path / "runs" / "test")
    decision = decide(make_plan(sweep), layout)
    settings = LaunchSettings(layout.root, sweep.machine, timeout_s=100.0)
    made = JobQueue(decision, layout, LedgerWriter(layout, decision), settings)
    made.start()
    made._waiting = [[trial] for group in made._waiting for trial in group]
    assert [group[0].arm for group in made._waiting] == ["int8", "int6", "qat"]
    monkeypatch.setattr(pgray.scheduler.queue, "usable_training", lambda *_: None)
    return made


def test_while_a_training_run_trains_no_other_job_of_it_starts(queue: JobQueue) -> None:
    first, second = queue.next(), queue.next()
    assert first is not None
    assert second is not None
    assert first.train_fingerprint != second.train_fingerprint
    assert queue.training == {first.job_id, second.job_id}
    assert queue.next() is None
    assert len(queue.to_come) == 1


def test_exports_of_one_training_run_go_side_by_side(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgray.scheduler.queue, "usable_training", lambda *_: "there")
    first, second = queue.next(), queue.next()
    assert first is not None
    assert second is not None
    assert first.train_fingerprint == second.train_fingerprint
    assert (first.job_id, second.job_id) == (f"{first.train_fingerprint}-0", f"{first.train_fingerprint}-1")
    assert queue.training == set()


def test_training_waits_for_exports_of_the_same_run(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that have gone in between would be written while the first job reads them."""
    with monkeypatch.context() as patch:
        patch.setattr(pgray.scheduler.queue, "usable_training", lambda *_: "there")
        first = queue.next()
    second = queue.next()
    assert first is not None
    assert second is not None
    assert second.train_fingerprint != first.train_fingerprint
    assert queue.next() is None


def test_a_job_reserves_what_the_longest_of_its_own_sort_held(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings and exports are counted apart; a job that is retried keeps its sort."""
    trained = queue.next()
    assert trained is not None
    queue.history.started(trained)
    (entry,) = queue.history.ended(trained, True, None)
    queue.on_ended(trained, [replace_held(entry, 50.0)], is_stopping=True)
    queue.open[trained.job_id] = trained
    queue.on_ended(trained, [replace_held(entry, 20.0)], is_stopping=True)
    assert queue._gpu_s_to_reserve(trained, True) == pytest.approx(55.0), "a shorter one changes nothing"
    queue.open[trained.job_id] = trained
    queue.on_ended(trained, [replace_held(entry, 190.0)], is_stopping=True)
    assert queue._gpu_s_to_reserve(trained, True) == 200.0, "no more than the time limit"
    queue._longest_gpu_s[True] = 50.0
    assert queue._gpu_s_to_reserve(trained, False) == 200.0, "no export has ended: the time limit on two GPUs"
    monkeypatch.setattr(pgray.scheduler.queue, "usable_training", lambda *_: "there")
    exported = queue.next()
    assert exported is not None
    queue.history.started(exported)
    (entry,) = queue.history.ended(exported, True, None)
    queue.on_ended(exported, [replace_held(entry, 4.0)], is_stopping=True)
    assert queue._gpu_s_to_reserve(exported, False) == pytest.approx(4.4)
    assert queue._gpu_s_to_reserve(exported, True) == pytest.approx(55.0)


def replace_held(entry: object, gpu_s: float) -> object:
    return entry.model_copy(update={"gpu_held_s": gpu_s})  # type: ignore[attr-defined]


def test_the_loop_waits_for_a_supervisors_word_only_as_long_as_it_may_take(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has ended: its job is collected when the exit record is there, or after the patience; at once if nothing ran."""
    monkeypatch.setattr("pgray.scheduler.loop.write_tables", lambda _: None)
    now = 1000.0
    monkeypatch.setattr("pgray.scheduler.loop.time.monotonic", lambda: now)
    queue.layout.root.mkdir(parents=True)
    (queue.layout.root / LOCK_FILE).touch()
    loop = SweepLoop(queue, CurveMonitor([], "int8", {}, queue.layout), ProgressReporter(), Logger("x"), Interrupt())
    patience_s = queue.launch.end_patience_s
    assert patience_s == queue.launch.grace_s + 5
    for was_started in (True, False):
        job_id = loop.next_job(9)
        assert job_id is not None
        loop.on_started(job_id)
        if was_started:
            write_json(queue.layout.job(job_id).launch, {"token": "x"})
            write_json(queue.layout.job(job_id).exit, {})
            loop.poll()
            assert job_id in queue.open, "its worker has not ended yet"
            queue.layout.job(job_id).exit.unlink()
        loop.on_ended(job_id, "gone")
        loop.poll()
        now += patience_s - 0.1 if was_started else 0.1
        loop.poll()
        assert (job_id in queue.open) == was_started
        now += 0.2
        loop.poll()
        assert job_id not in queue.open


def test_tables_take_a_tenth_of_the_time_and_the_first_is_written_at_once(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing one takes 2 s here, so 20 s pass before the next."""
    now, written = 1000.0, []

    def write(_: RunLayout) -> None:
        nonlocal now
        written.append(now)
        now += 2.0

    monkeypatch.setattr("pgray.scheduler.loop.write_tables", write)
    monkeypatch.setattr("pgray.scheduler.loop.time.monotonic", lambda: now)
    queue.layout.root.mkdir(parents=True)
    (queue.layout.root / LOCK_FILE).touch()
    loop = SweepLoop(queue, CurveMonitor([], "int8", {}, queue.layout), ProgressReporter(), Logger("x"), Interrupt())
    for ends_at in (1000.0, 1021.9, 1022.1):
        job_id = loop.next_job(9)
        assert job_id is not None
        now = ends_at
        loop.on_started(job_id)
        loop.on_ended(job_id, "its worker was lost before it began")
        now += 0.01
        loop.poll()
        assert job_id not in queue.open
    assert written == pytest.approx([1000.01, 1022.11])


@pytest.mark.usefixtures("executor")
def test_retry_warns_of_what_will_diverge_again_and_runs_at_once(
    write_sweep: WriteSweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_sweep(
        arms="  int8: {}\n  bad: {optim.muon_momentum_steps: 1}\n",
        seeds="[1]",
        set="optim: {ns_steps: 1, muon_momentum_steps: 0}",
    )
    root = drive(path, tmp_path / "runs").run_root
    monkeypatch.setattr(pgray.cli.run, "run_sweep", partial(run_sweep, trainer_command=PLAIN))
    assert main(["retry", str(root), "--run"]) == 3
    error = capsys.readouterr().err
    assert "warning: 1 trial diverged, such as bad-" in error
    assert "the same config and seed will diverge again" in error
    (bad,) = [e for e in Ledger(RunLayout(root).ledger).states().values() if e.arm == "bad"]
    assert (bad.state, bad.attempt) == ("failed", 2)

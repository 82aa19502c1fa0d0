"""What a person sees: lines everywhere, bars on a terminal."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from pgray.execution.job_events import JobProgress
from pgray.scheduler.progress import EndedTrial, TerminalProgress, duration
from pgray.scheduler.time_left import JobToCome
from trainer.records.job import Job
from trainer.records.ledger import LedgerEntry
from trainer.records.states import TrialState


def show(job: Job, *, is_terminal: bool) -> str:
    """What is printed for one job that starts, trains, exports and fails."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=120, color_system=None)
    progress = TerminalProgress(console)
    failed = LedgerEntry(
        at=0.0, sweep="x", arm="int8", seed=1, trial_id="t", train_fingerprint="f", state=TrialState.FAILED,
        failure_kind="oom", reason="out of memory",
    )  # fmt: skip
    with progress, progress.waiting("for nothing"):
        pass
    with progress:
        progress.planned(3)
        progress.started(job, "int8 seed 1")
        progress.progressed(job.job_id, JobProgress(50, 100, 1.0, 2.3456, 0.5, 0, 1))
        progress._bars.refresh()
        progress.progressed(job.job_id, JobProgress(100, 100, 2.0, None, 1.0, 0, 1))
        progress._bars.refresh()
        progress.progressed("unknown", JobProgress(1, 1, 1.0, None, 1.0, 1, 1))
        progress.ended(job.job_id, [EndedTrial(failed, "int8")])
    return file.getvalue()


def test_a_pipe_gets_lines_only(make_job: Callable[..., Job]) -> None:
    assert show(make_job(), is_terminal=False) == (
        "started   int8 seed 1\nfailed    int8 seed 1 after 0 s: oom: out of memory   [1/3 jobs]\n"
    )


def test_a_terminal_gets_bars_as_well(make_job: Callable[..., Job]) -> None:
    shown = show(make_job(), is_terminal=True)
    for expected in ("0 of 3 jobs", "step 50/100  loss 2.346", "exported 0/1", "oom: out of memory   [1/3 jobs]"):
        assert expected in shown


def test_a_trial_is_shown_with_its_own_time_its_label_and_the_time_left(make_job: Callable[..., Job]) -> None:
    file = io.StringIO()
    progress = TerminalProgress(Console(file=file, width=120, color_system=None))
    job, second = make_job(), make_job(job_id="job-1")
    entry = LedgerEntry(
        at=0.0, sweep="x", arm="quant.bits.mlp=4", seed=1, trial_id="t", train_fingerprint="f", state=TrialState.FINISHED
    )  # fmt: skip
    with progress:
        progress.started(job, "mlp=4, mlp=6 seed 1")
        progress.started(second, "mlp=8 seed 1")
        progress.planned(3, [JobToCome(trains=True, num_trials=1)])
        progress.ended(job.job_id, [EndedTrial(entry, "mlp=4", 42.0), EndedTrial(entry, "mlp=6", 80.0)])
        progress.ended(second.job_id, [EndedTrial(entry, "mlp=8", 3.0)])
    assert file.getvalue().splitlines()[2:] == [
        "finished  mlp=4 seed 1 in 42 s   [1/3 jobs, about 0 s left (judged by 1 job)]",
        "finished  mlp=6 seed 1 in 1 min 20 s   [1/3 jobs, about 0 s left (judged by 1 job)]",
        "finished  mlp=8 seed 1 in 3 s   [2/3 jobs, about 0 s left (judged by 2 jobs)]",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text

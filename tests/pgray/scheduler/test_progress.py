"""What a person sees: lines everywhere, bars on a terminal."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from pgray.execution.job_events import JobProgress
from pgray.scheduler.progress import TerminalProgress, duration
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
        progress.ended(job.job_id, [failed])
    return file.getvalue()


def test_a_pipe_gets_lines_only(make_job: Callable[..., Job]) -> None:
    assert show(make_job(), is_terminal=False) == (
        "started   int8 seed 1\nfailed    int8 seed 1 in 0 s: oom: out of memory   [1/3 jobs]\n"
    )


def test_a_terminal_gets_bars_as_well(make_job: Callable[..., Job]) -> None:
    shown = show(make_job(), is_terminal=True)
    for expected in ("0 of 3 jobs", "step 50/100  loss 2.346", "export 0/1", "oom: out of memory   [1/3 jobs]"):
        assert expected in shown


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text

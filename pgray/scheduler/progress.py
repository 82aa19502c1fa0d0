"""Shows a running sweep: a line for every event, and on a terminal a live bar for each running job.

Everything goes to standard error, so that standard output holds only what was asked for.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from pgray.execution.job_events import JobProgress
from trainer.records.job import Job
from trainer.records.ledger import LedgerEntry
from trainer.records.text import count_of

_SPEED_OVER_S = 1800.0  # the time left is estimated from the speed over this long


class ProgressReporter:
    """What the driver reports while a sweep runs. Shows nothing: for `--json` and for the Python API.

    It is entered while jobs run.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is shown."""

    def say(self, text: str) -> None:
        """Show a line."""

    def waiting(self, what: str) -> AbstractContextManager[object]:
        """Show what the driver waits for, inside a `with` block."""
        return nullcontext()

    def planned(self, num_jobs: int) -> None:
        """Set the number of jobs known up to now; retries and proposals add to it."""

    def started(self, job: Job, label: str) -> None:
        """Show a job that has started."""

    def progressed(self, job_id: str, progress: JobProgress) -> None:
        """Show how far a job is."""

    def ended(self, job_id: str, entries: Sequence[LedgerEntry]) -> None:
        """Show how each trial of a job ended."""


class TerminalProgress(ProgressReporter):
    """Prints lines on any terminal or pipe, and live bars where the terminal can redraw."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[step]}  {task.fields[loss]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
            refresh_per_second=2,
            speed_estimate_period=_SPEED_OVER_S,
        )
        self._all = self._bars.add_task("jobs", total=None, step="", loss="")
        self._running: dict[str, tuple[TaskID, float]] = {}  # job -> its bar, when it started
        self._num_jobs = self._num_ended = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:  # else it would print an empty line
            self._bars.stop()

    def say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def waiting(self, what: str) -> AbstractContextManager[object]:
        return self._console.status(what) if self._console.is_terminal else nullcontext()

    def planned(self, num_jobs: int) -> None:
        self._num_jobs = num_jobs
        self._update_total()

    def started(self, job: Job, label: str) -> None:
        bar = self._bars.add_task(label, total=1.0, step="starting", loss="")
        self._running[job.job_id] = bar, time.monotonic()
        if not self._console.is_terminal:
            self.say(f"started   {label}")

    def progressed(self, job_id: str, progress: JobProgress) -> None:
        if job_id not in self._running:
            return
        exported_frac = progress.num_exported / (progress.num_exports or 1)
        step = f"step {progress.step}/{progress.steps}"
        if progress.train_frac >= 1:
            step = f"export {progress.num_exported}/{progress.num_exports}"
        self._bars.update(
            self._running[job_id][0],
            completed=0.8 * progress.train_frac + 0.2 * exported_frac,  # training is most of a job
            step=step,
            loss="" if progress.train_loss_nats is None else f"loss {progress.train_loss_nats:.3f}",
        )
        self._update_total()

    def ended(self, job_id: str, entries: Sequence[LedgerEntry]) -> None:
        self._num_ended += 1
        took = ""
        if job_id in self._running:
            bar, started_at = self._running.pop(job_id)
            self._bars.remove_task(bar)
            took = f" in {duration(time.monotonic() - started_at)}"
        self._update_total()
        for entry in entries:
            why = f": {entry.failure_kind}: {entry.reason}" if entry.failure_kind else ""
            count = f"[{self._num_ended}/{count_of(self._num_jobs, 'job')}]"
            self.say(f"{entry.state:<9} {entry.arm} seed {entry.seed}{took}{why}   {count}")

    def _update_total(self) -> None:
        running = {bar for bar, _ in self._running.values()}
        done = self._num_ended + sum(task.completed for task in self._bars.tasks if task.id in running)
        text = f"{self._num_ended} of {count_of(self._num_jobs, 'job')}"
        self._bars.update(self._all, description=text, total=self._num_jobs, completed=done)


def duration(seconds: float) -> str:
    """Format as `42 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

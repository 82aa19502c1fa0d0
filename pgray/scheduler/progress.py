"""Shows a running sweep: a line for every event, and on a terminal a live bar for each running job.

Everything goes to standard error, so that standard output holds only what was asked for.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from pgray.execution.job_events import JobProgress
from pgray.scheduler.time_left import JobToCome, TimeLeft
from trainer.records.job import Job
from trainer.records.ledger import LedgerEntry
from trainer.records.states import TrialState
from trainer.records.text import count_of


@dataclass(frozen=True)
class EndedTrial:
    """A trial whose job has ended. `label`: of its arm. `own_s`: what it took itself, with its share of a training run that
    other trials used too; None if it has not finished.
    """

    entry: LedgerEntry
    label: str
    own_s: float | None = None


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

    def planned(self, num_jobs: int, to_come: Sequence[JobToCome] = ()) -> None:
        """Set the number of jobs, to which retries add, and those of them that have still to start."""

    def started(self, job: Job, label: str) -> None:
        """Show a job that has started."""

    def progressed(self, job_id: str, progress: JobProgress) -> None:
        """Show how far a job is."""

    def ended(self, job_id: str, trials: Sequence[EndedTrial]) -> None:
        """Show how each trial of a job ended."""


class TerminalProgress(ProgressReporter):
    """Prints lines on any terminal or pipe, and live bars where the terminal can redraw."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[step]}  {task.fields[loss]}  {task.fields[left]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
            refresh_per_second=2,
        )
        self._all = self._bars.add_task("jobs", total=None, step="", loss="", left="")
        self._times, self._to_come = TimeLeft(), list[JobToCome]()
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

    def planned(self, num_jobs: int, to_come: Sequence[JobToCome] = ()) -> None:
        self._num_jobs, self._to_come = num_jobs, list(to_come)
        self._update_total()

    def started(self, job: Job, label: str) -> None:
        bar = self._bars.add_task(label, total=1.0, step="starting", loss="", left="")
        self._running[job.job_id] = bar, time.monotonic()
        self._times.on_started(job.job_id, len(job.trials), time.monotonic())
        if not self._console.is_terminal:
            self.say(f"started   {label}")

    def progressed(self, job_id: str, progress: JobProgress) -> None:
        if job_id not in self._running:
            return
        now = time.monotonic()
        self._times.on_progress(job_id, progress, now)
        left = self._times.of_job(job_id, now)
        exported_frac = progress.num_exported / (progress.num_exports or 1)
        step = f"step {progress.step}/{progress.steps}"
        if progress.train_frac >= 1:
            step = f"exported {progress.num_exported}/{progress.num_exports}"
        self._bars.update(
            self._running[job_id][0],
            completed=0.8 * progress.train_frac + 0.2 * exported_frac,  # training is most of a job
            step=step,
            loss="" if progress.train_loss_nats is None else f"loss {progress.train_loss_nats:.3f}",
            left=f"about {duration(left.seconds)} left {left.basis}" if left else "",
        )
        self._update_total()

    def ended(self, job_id: str, trials: Sequence[EndedTrial]) -> None:
        self._num_ended += 1
        after = ""
        if job_id in self._running:
            now = time.monotonic()
            bar, started_at = self._running.pop(job_id)
            self._bars.remove_task(bar)
            self._times.on_ended(job_id, all(trial.entry.state == TrialState.FINISHED for trial in trials), now)
            after = f" after {duration(now - started_at)}"
        self._update_total()
        left = self._times.of_all(self._to_come, time.monotonic()) if self._num_ended < self._num_jobs else None
        eta = f", about {duration(left.seconds)} left ({left.basis})" if left else ""
        count = f"[{self._num_ended}/{count_of(self._num_jobs, 'job')}{eta}]"
        for trial in trials:
            entry = trial.entry
            took = after if trial.own_s is None else f" in {duration(trial.own_s)}"
            why = f": {entry.failure_kind}: {entry.reason}" if entry.failure_kind else ""
            self.say(f"{entry.state:<9} {trial.label} seed {entry.seed}{took}{why}   {count}")

    def _update_total(self) -> None:
        running = {bar for bar, _ in self._running.values()}
        done = self._num_ended + sum(task.completed for task in self._bars.tasks if task.id in running)
        left = self._times.of_all(self._to_come, time.monotonic())
        self._bars.update(
            self._all,
            description=f"{self._num_ended} of {count_of(self._num_jobs, 'job')}",
            total=self._num_jobs,
            completed=done,
            left=f"about {duration(left.seconds)} left, {left.basis}" if left else "",
        )


def duration(seconds: float) -> str:
    """Format as `42 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

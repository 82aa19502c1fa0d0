"""What a person sees while a sweep runs: a line for every event, and on a terminal a live table of the running jobs.

Everything goes to standard error, so that standard output holds only what was asked for.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pgray.execution.job_events import JobProgress
from trainer.records.job import Job
from trainer.records.ledger import LedgerEntry


class ProgressReporter:
    """Shows nothing: for `--json` and for the Python API."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def waiting(self, _: str) -> AbstractContextManager[object]:
        return nullcontext()

    def planned(self, num_jobs: int, slots: int) -> None:
        pass

    def started(self, job: Job, label: str) -> None:
        pass

    def progressed(self, job_id: str, progress: JobProgress) -> None:
        pass

    def ended(self, job_id: str, entries: Sequence[LedgerEntry]) -> None:
        pass


@dataclass
class _Running:
    label: str
    began: float
    progress: JobProgress | None = None
    total_s: float | None = None  # expected, from the last report

    def report(self, progress: JobProgress) -> None:
        self.progress = progress
        if self.done_frac > 0.02:
            self.total_s = (time.monotonic() - self.began) / self.done_frac

    @property
    def done_frac(self) -> float:
        """Training counts for most of a job; its exports for the rest."""
        if self.progress is None:
            return 0.0
        return 0.8 * self.progress.train_frac + 0.2 * self.progress.num_exported / (self.progress.num_exports or 1)

    def left_s(self) -> float | None:
        return None if self.total_s is None else max(0.0, self.total_s - (time.monotonic() - self.began))


class Terminal(ProgressReporter):
    """Lines on any terminal or pipe; the live table too where the terminal can redraw."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._running: dict[str, _Running] = {}
        self._num_jobs = self._num_ended = 0
        self._slots = 1
        self._took_s: list[float] = []
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def waiting(self, what: str) -> AbstractContextManager[object]:
        return self._console.status(what) if self._console.is_terminal else nullcontext()

    def planned(self, num_jobs: int, slots: int) -> None:
        """How many jobs there are as far as is known now; retries and proposals add to them."""
        self._num_jobs, self._slots = num_jobs, max(1, slots)

    def started(self, job: Job, label: str) -> None:
        self._running[job.job_id] = _Running(label, time.monotonic())
        if not self._console.is_terminal:
            self.say(f"started   {label}")

    def progressed(self, job_id: str, progress: JobProgress) -> None:
        if job_id in self._running:
            self._running[job_id].report(progress)

    def ended(self, job_id: str, entries: Sequence[LedgerEntry]) -> None:
        running = self._running.pop(job_id, None)
        self._num_ended += 1
        took = ""
        if running is not None:
            self._took_s.append(time.monotonic() - running.began)
            took = f" in {duration(self._took_s[-1])}"
        for entry in entries:
            why = f": {entry.failure_kind}: {entry.reason}" if entry.failure_kind else ""
            self.say(
                f"{entry.state:<9} {entry.arm} seed {entry.seed}{took}{why}   [{self._num_ended}/{self._num_jobs} jobs]"
            )

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 1), pad_edge=False)
        for name in ("job", "", "step", "loss", "left"):
            table.add_column(name, style="bold" if name == "job" else "", no_wrap=name != "job")
        for running in list(self._running.values()):  # drawn in a thread
            table.add_row(*self._row(running))
        left = self._left_s()
        eta = f", about {duration(left)} left" if left is not None else ""
        table.add_row(Text(f"{self._num_ended} of {self._num_jobs} jobs{eta}", style="dim"))
        return table

    def _row(self, running: _Running) -> list[Any]:
        now = running.progress
        bar = ProgressBar(total=1.0, completed=running.done_frac, width=20)
        if now is None:
            return [running.label, bar, "starting", "", ""]
        loss = now.train_loss_nats
        is_trained = now.train_frac >= 1
        step = f"export {now.num_exported}/{now.num_exports}" if is_trained else f"{now.step}/{now.steps}"
        left = running.left_s()
        return [
            running.label,
            bar,
            step,
            f"{loss:.3f}" if loss is not None else "",
            duration(left) if left is not None else "",
        ]

    def _left_s(self) -> float | None:
        """Until the last job ends, if those that wait take as long as the mean of the others."""
        running = list(self._running.values())
        known_s = [*self._took_s, *(job.total_s for job in running if job.total_s is not None)]
        if not known_s:
            return None
        each_s = sum(known_s) / len(known_s)
        num_waiting = self._num_jobs - self._num_ended - len(running)
        lefts = [each_s if (left := job.left_s()) is None else left for job in running]
        return max(lefts, default=0.0) + num_waiting * each_s / self._slots


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

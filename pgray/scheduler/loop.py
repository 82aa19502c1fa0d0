"""Between Ray and the queue: hands out jobs, hears what starts and ends, and writes it down.

A job has ended when its supervisor has said so on disk, not when Ray says that its worker is gone.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgray.execution.job_events import JobProgress
from pgray.execution.orphans import end_job
from pgray.scheduler.curve_monitor import CurveMonitor
from pgray.scheduler.ledger_writer import LedgerWriter, job_token
from pgray.scheduler.progress import ProgressReporter
from pgray.scheduler.queue import JobQueue
from pgray.scheduler.signals import Interrupt
from pgray.store.outcomes import read_result
from pgray.store.storage_errors import why_unwritable
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.records.states import TrialState

_TABLE_SHARE = 0.1  # of the driver's time, at most, goes into rewriting the table
_NEVER = float("inf")


@dataclass
class SweepLoop:
    layout: RunLayout
    queue: JobQueue
    history: LedgerWriter
    watch: CurveMonitor
    show: ProgressReporter
    interrupt: Interrupt
    end_patience_s: float  # for word of how a job ended, after its worker has
    write_tables: Callable[[], None]
    is_stuck: bool = False  # nothing can be written down
    _running: dict[str, float] = field(default_factory=dict)  # job -> when to stop waiting for word of its end
    _worker_errors: dict[str, str | None] = field(default_factory=dict)
    _speeds: list[dict[str, Any]] = field(default_factory=list)  # of the nodes of finished trials
    _told_nodes: set[str] = field(default_factory=set)
    _next_table: float = 0.0
    _has_said_draining: bool = False

    def next_job(self, slots: int) -> str | None:
        """The next job to start, None if there is none now; `slots`: how many may be open at once."""
        if len(self.queue.open) >= slots or self.interrupt.is_draining:
            return None
        job = None
        with self._or_pause():
            job = self.queue.next()
        self.show.planned(self.queue.num_started + self.queue.num_waiting, slots)
        return job.job_id if job else None

    def on_started(self, job_id: str) -> None:
        job = self.queue.open[job_id]
        self._running[job_id] = _NEVER
        with self._or_pause():
            self.history.started(job)
        self.show.started(job, self.history.label(job))

    def on_progress(self, job_id: str, progress: JobProgress) -> None:
        self.show.progressed(job_id, progress)

    def on_ended(self, job_id: str, worker_error: str | None = None) -> None:
        # Where the Ray worker died, its supervisor still needs a moment to end the job and to say how it ended.
        has_begun = job_token(self.layout, job_id) is not None
        self._running[job_id] = time.monotonic() + (self.end_patience_s if has_begun else 0)
        self._worker_errors[job_id] = worker_error

    def poll(self) -> bool:
        """Several times a second: collect what has ended. Returns whether to go on."""
        for job_id, deadline in list(self._running.items()):
            has_ended = deadline < _NEVER
            if has_ended and (self.layout.job(job_id).exit.exists() or time.monotonic() > deadline):
                with self._or_pause():
                    self._collect(job_id)
        with self._or_pause():
            self.watch.look(self.queue.open)
        if self.interrupt.is_draining and not self._has_said_draining:
            self._has_said_draining = True
            self.show.say(
                f"letting {len(self._running)} jobs finish; Ctrl-C again stops them, to be gone on with later"
            )
        is_over = self.queue.is_done or (self.interrupt.is_draining and not self.queue.open)
        return not self.is_stopping and not is_over

    @property
    def is_stopping(self) -> bool:
        """Whether what runs is being stopped, so that a job which does not come to its end has not failed."""
        return self.interrupt.is_set or self.is_stuck

    @contextlib.contextmanager
    def _or_pause(self) -> Iterator[None]:
        """Where the run folder can no longer be written, the sweep pauses and all that runs is stopped."""
        try:
            yield
        except OSError as error:
            self.queue.paused = why_unwritable(error)
            self.is_stuck = True

    def finish(self) -> None:
        """Wait for the jobs that still run: all of them are over or being stopped."""
        for job_id in list(self._running):
            self.on_ended(job_id)
        if self._running and self.is_stopping:
            self.show.say(f"stopping {len(self._running)} jobs")
        while self._running:
            self.poll()
            time.sleep(0.05)

    def _collect(self, job_id: str) -> None:
        del self._running[job_id]
        job = self.queue.open[job_id]
        if not self.layout.job(job_id).exit.exists():
            end_job(job_token(self.layout, job_id))
        entries = self.history.ended(job, self.is_stopping, self._worker_errors.pop(job_id, None))
        self.show.ended(job_id, entries)
        self.queue.ended(job, entries, self.is_stopping)
        self._tell_slow_nodes(entries)
        if time.monotonic() >= self._next_table:
            began = time.monotonic()
            self.write_tables()
            self._next_table = time.monotonic() + (time.monotonic() - began) / _TABLE_SHARE

    def _tell_slow_nodes(self, entries: Sequence[LedgerEntry]) -> None:
        """Once for each node, as soon as its speed is known; rows say it too."""
        from results.loading.slow_nodes import is_judged, slow_node_notes

        results = (
            read_result(self.layout.trial(entry.trial_id)) for entry in entries if entry.state == TrialState.FINISHED
        )
        new = [r.model_dump(include={"hardware", "node", "node_tflops"}) for r in results if r]
        self._speeds += filter(is_judged, new)
        for speed, note in zip(self._speeds, slow_node_notes(self._speeds), strict=True):
            if note and speed["node"] not in self._told_nodes:
                self._told_nodes.add(speed["node"])
                self.show.say(f"warning: {note}")

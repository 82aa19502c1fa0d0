"""Connects the executor with the job queue: hands out jobs, and records what starts and ends.

A job has ended when its supervisor has written the exit record, not when the executor reports that its worker is gone.
"""

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgray.execution.job_events import JobProgress
from pgray.execution.orphans import end_job, end_run
from pgray.execution.run_lock import LOCK_FILE
from pgray.scheduler.curve_monitor import CurveMonitor
from pgray.scheduler.live_report import LiveReport
from pgray.scheduler.progress import EndedTrial, ProgressReporter
from pgray.scheduler.queue import JobQueue
from pgray.scheduler.signals import Interrupt
from pgray.store.outcomes import read_result
from pgray.store.storage_errors import why_unwritable
from trainer.records.layout import RunLayout
from trainer.records.results import TrialResult
from trainer.records.states import TrialState
from trainer.records.text import count_of

_TABLE_SHARE = 0.1  # of the driver's time, at most, goes into rewriting the table
_NEVER = float("inf")


class RunFolderGoneError(Exception):
    """The run folder was renamed or deleted while the sweep ran."""


@dataclass
class SweepLoop:
    """The `JobEvents` of a sweep.

    `is_halted`: the run folder cannot be written or Ray was lost, so that the sweep pauses and all jobs are being stopped.
    """

    queue: JobQueue
    monitor: CurveMonitor
    reporter: ProgressReporter
    log: logging.Logger
    interrupt: Interrupt
    is_halted: bool = False
    is_folder_gone: bool = False
    _running: dict[str, float] = field(default_factory=dict)  # job -> when to stop waiting for its exit record
    _worker_errors: dict[str, str | None] = field(default_factory=dict)
    _speeds: list[dict[str, Any]] = field(default_factory=list)  # of the nodes of finished trials
    _warned_nodes: set[str] = field(default_factory=set)
    _next_table_at: float = 0.0
    _announced: set[str] = field(default_factory=set)
    _folder_id: tuple[int, int] = field(init=False)
    _report: LiveReport = field(init=False)

    def __post_init__(self) -> None:
        self._folder_id = _identify(self.queue.layout.root / LOCK_FILE)
        self._report = LiveReport(self.queue.layout.root, self.log)

    def next_job(self, slots: int) -> str | None:
        """Return the id of the next job to start, None if there is none now. `slots`: how many may be open at once."""
        if len(self.queue.open) >= slots or self.interrupt.is_draining or self._has_folder_gone():
            return None
        job = None
        with self._pausing_if_unwritable():
            job = self.queue.next()
        return job.job_id if job else None

    def on_started(self, job_id: str) -> None:
        if self._has_folder_gone():
            return
        job = self.queue.open[job_id]
        self._running[job_id] = _NEVER
        with self._pausing_if_unwritable():
            self.queue.history.started(job)
        self._report.on_change()
        self.reporter.started(job, self.queue.history.label(job))
        self._report_plan()

    def on_progress(self, job_id: str, progress: JobProgress) -> None:
        self._report.on_change()  # the curves have grown
        self.reporter.progressed(job_id, progress)

    def on_ended(self, job_id: str, worker_error: str | None = None) -> None:
        # If the worker died, its supervisor still needs a moment to end the job and to write how it ended.
        was_started = self.queue.layout.job(job_id).launch.exists()
        self._running[job_id] = time.monotonic() + (self.queue.launch.end_patience_s if was_started else 0)
        self._worker_errors[job_id] = worker_error

    def poll(self) -> bool:
        """Collect ended jobs and judge running ones, several times a second. Returns whether to continue."""
        if self._has_folder_gone():
            return False
        for job_id, deadline in list(self._running.items()):
            worker_has_ended = deadline < _NEVER
            if worker_has_ended and (self.queue.layout.job(job_id).exit.exists() or time.monotonic() > deadline):
                with self._pausing_if_unwritable():
                    self._collect(job_id)
        with self._pausing_if_unwritable():
            for job_id, reason in self.monitor.poll(self.queue.open).items():
                self.log.info("killed job %s: %s", job_id, reason)
        self._report.poll()
        if self.queue.paused is not None and self._is_first("paused"):
            self.log.info("paused: %s", self.queue.paused)
        if self.interrupt.is_draining and not self.is_stopping and self._is_first("draining"):
            jobs = count_of(len(self._running), "job")
            self._announce(f"Waiting for {jobs}. Ctrl-C again stops them; the next run resumes them.")
        is_over = self.queue.is_done or (self.interrupt.is_draining and not self.queue.open)
        return not self.is_stopping and not is_over

    @property
    def is_stopping(self) -> bool:
        """Whether running jobs are being stopped, so that a job without a result has not failed."""
        return self.interrupt.is_stopping or self.is_halted

    def finish(self) -> None:
        """Wait for the jobs that still run. By now all of them have ended or are being stopped."""
        self._report.close()
        if self._has_folder_gone():
            end_run(self.queue.layout)
            return
        for job_id in list(self._running):
            self.on_ended(job_id)
        if self._running and self.is_stopping:
            self._announce(f"Stopping {count_of(len(self._running), 'job')}.")
        while self._running:
            self.poll()
            time.sleep(0.05)
        self._report.close()  # the driver writes the last one

    def _has_folder_gone(self) -> bool:
        """Whether the run folder is no longer the one that was locked. Any write would make a new one."""
        if not self.is_folder_gone and _identify(self.queue.layout.root / LOCK_FILE) != self._folder_id:
            self.is_folder_gone = True
            self.halt(f"the run folder has gone: {self.queue.layout.root} was renamed or deleted while the sweep ran")
        return self.is_folder_gone

    def halt(self, why: str) -> None:
        """Pause the sweep and stop all jobs."""
        self.queue.paused, self.is_halted = why, True

    @contextlib.contextmanager
    def _pausing_if_unwritable(self) -> Iterator[None]:
        """If the run folder can no longer be written, pause the sweep and stop all jobs."""
        try:
            yield
        except OSError as error:
            self.halt(why_unwritable(error))

    def _collect(self, job_id: str) -> None:
        del self._running[job_id]
        job = self.queue.open[job_id]
        if not self.queue.layout.job(job_id).exit.exists():
            end_job(self.queue.layout.job(job_id))
        entries = self.queue.history.ended(job, self.is_stopping, self._worker_errors.pop(job_id, None))
        finished = [entry.trial_id for entry in entries if entry.state == TrialState.FINISHED]
        results = {name: r for name in finished if (r := read_result(self.queue.layout.trial(name)))}
        self.queue.on_ended(job, entries, self.is_stopping)
        self._report_plan()
        shown = [
            EndedTrial(entry, self.queue.history.arm_label(entry.arm), r.wall_s if r else None)
            for entry, r in ((entry, results.get(entry.trial_id)) for entry in entries)
        ]
        self.reporter.ended(job_id, shown)
        self._warn_of_slow_nodes(results.values())
        if time.monotonic() >= self._next_table_at:
            start = time.monotonic()
            write_tables(self.queue.layout)
            self._next_table_at = time.monotonic() + (time.monotonic() - start) / _TABLE_SHARE

    def _report_plan(self) -> None:
        to_come, is_over = self.queue.to_come, self.interrupt.is_draining or self.queue.paused is not None
        self.reporter.planned(self.queue.num_started + len(to_come), [] if is_over else to_come)

    def _warn_of_slow_nodes(self, results: Iterable[TrialResult]) -> None:
        """Warn once about each slow node, as soon as its speed is known. The table's rows repeat the note."""
        from results.loading.slow_nodes import is_judged, slow_node_notes

        new = [result.model_dump(include={"hardware", "node", "node_tflops"}) for result in results]
        self._speeds += filter(is_judged, new)
        for speed, note in zip(self._speeds, slow_node_notes(self._speeds), strict=True):
            if note and speed["node"] not in self._warned_nodes:
                self._warned_nodes.add(speed["node"])
                self._announce(f"warning: {note}")

    def _announce(self, text: str) -> None:
        self.log.info(text)
        self.reporter.say(text)

    def _is_first(self, what: str) -> bool:
        is_first = what not in self._announced
        self._announced.add(what)
        return is_first


def _identify(file: Path) -> tuple[int, int]:
    """Return what only this file has; zeros if there is no such file."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def write_tables(layout: RunLayout) -> None:
    from results.present.files import write_all  # takes half a second to import

    write_all(layout.root)

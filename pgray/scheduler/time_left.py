"""Estimates how long a sweep still takes, from what its jobs have taken so far. Knows nothing before one was measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from pgray.execution.job_events import JobProgress
from trainer.records.text import count_of

_MIN_TRAIN_FRAC = 0.02  # of a training run: its speed is unknown before


@dataclass(frozen=True)
class JobToCome:
    """A job that has not started. `trains`: whether it must train, or only exports from weights that are there."""

    trains: bool
    num_trials: int


@dataclass(frozen=True)
class Estimate:
    """`seconds` from now. `basis`: what they were judged by."""

    seconds: float
    basis: str


@dataclass
class _Running:
    started_at: float
    num_trials: int
    first: tuple[float, float] | None = None  # share of the training, and when it was reported
    last: tuple[float, float] = (0.0, 0.0)
    trained_at: float | None = None
    num_exported: int = 0
    exported_at: float = 0.0


class TimeLeft:
    """The times of a sweep's jobs. All times are seconds on one clock that never goes back.

    A job trains for a time, and then exports its trials one after another. The speed of a training run is its own; the time
    of a training run that has not begun, and of an export, is the mean of those that have ended.
    """

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}
        self._train_s: list[float] = []  # from the start of a job to the end of its training
        self._start_s: list[float] = []  # from the start of a job that only exports to its first export
        self._export_s: list[float] = []  # mean of a job's exports
        self._most_at_once = 1

    def on_started(self, job_id: str, num_trials: int, now: float) -> None:
        self._running[job_id] = _Running(now, num_trials)
        self._most_at_once = max(self._most_at_once, len(self._running))

    def on_progress(self, job_id: str, progress: JobProgress, now: float) -> None:
        job = self._running[job_id]
        job.first = job.first or (progress.train_frac, now)
        job.last = progress.train_frac, now
        if progress.train_frac >= 1 and job.trained_at is None:
            job.trained_at = now
        if progress.num_exported > job.num_exported:
            job.num_exported, job.exported_at = progress.num_exported, now

    def on_ended(self, job_id: str, has_finished: bool, now: float) -> None:
        """Forget a job, and learn from it if all its trials have finished."""
        job = self._running.pop(job_id)
        if not has_finished:
            return
        trained_at = job.trained_at
        if trained_at is None or job.first is None:  # too short to be seen: the parts of its time are unknown
            self._train_s.append(now - job.started_at)
            return
        (self._train_s if job.first[0] < 1 else self._start_s).append(trained_at - job.started_at)
        self._export_s.append((now - trained_at) / job.num_trials)

    @property
    def num_measured(self) -> int:
        return len(self._train_s) + len(self._start_s)

    def of_job(self, job_id: str, now: float) -> Estimate | None:
        """Return the time that a running job still needs; only of its training while the time of an export is unknown."""
        job = self._running[job_id]
        train_s = self._training_left_s(job, now)
        exports_s = self._exports_left_s(job, now)
        if train_s is None:
            return None
        if exports_s is None:
            return Estimate(train_s, "without exports") if job.trained_at is None else None
        return Estimate(train_s + exports_s, "with exports")

    def of_all(self, to_come: Iterable[JobToCome], now: float) -> Estimate | None:
        """Return the time until all jobs have ended; None while a part of it is unknown."""
        if not self.num_measured:
            return None
        left_s = []
        for job in self._running.values():
            train_s, exports_s = self._training_left_s(job, now), self._exports_left_s(job, now)
            if train_s is None or exports_s is None:
                return None
            left_s.append(train_s + exports_s)
        work_s = sum(left_s)
        for waiting in to_come:
            before_s = self._mean(self._train_s if waiting.trains else self._start_s)
            if before_s is None:
                return None
            work_s += before_s + waiting.num_trials * (self._mean(self._export_s) or 0.0)
        seconds = max(*left_s, work_s / self._most_at_once, 0.0)
        return Estimate(seconds, f"judged by {count_of(self.num_measured, 'job')}")

    def _training_left_s(self, job: _Running, now: float) -> float | None:
        if job.trained_at is not None:
            return 0.0
        first = job.first or job.last
        if job.last[0] - first[0] >= _MIN_TRAIN_FRAC and job.last[1] > first[1]:
            speed = (job.last[0] - first[0]) / (job.last[1] - first[1])
            return max(0.0, (1 - job.last[0]) / speed - (now - job.last[1]))
        usual_s = self._mean(self._train_s)
        return None if usual_s is None else max(0.0, usual_s - (now - job.started_at))

    def _exports_left_s(self, job: _Running, now: float) -> float | None:
        """Return the time of a job's exports that are left. Its own ended exports tell more than those of other jobs."""
        export_s = self._mean(self._export_s)
        if job.num_exported and job.trained_at is not None:
            export_s = (job.exported_at - job.trained_at) / job.num_exported
        if export_s is None:
            return 0.0 if self._train_s and not self._export_s else None
        began_at = max(job.exported_at, job.trained_at or now)
        return max(0.0, export_s * (job.num_trials - job.num_exported) - (now - began_at))

    @staticmethod
    def _mean(seconds: list[float]) -> float | None:
        return fmean(seconds) if seconds else None

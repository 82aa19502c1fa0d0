"""The interface between the executor, which runs jobs, and the scheduler, which decides about them. Needs no Ray."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class JobProgress:
    """How far a running job is. `train_frac`: share of the training that is done, by steps or by the clock, 0 to 1."""

    step: int
    steps: int
    train_s: float
    train_loss_nats: float | None
    train_frac: float
    num_exported: int
    num_exports: int


class JobEvents(Protocol):
    """What an executor calls while it runs jobs, always in the driver's thread."""

    def next_job(self, slots: int) -> str | None:
        """Return the id of the next job to start, None if there is none now. `slots`: how many jobs fit at once."""

    def on_started(self, job_id: str) -> None:
        """Record that a job's worker has started."""

    def on_progress(self, job_id: str, progress: JobProgress) -> None:
        """Show how far a job is. Called at most every two seconds per job."""

    def on_ended(self, job_id: str, worker_error: str | None) -> None:
        """Record that a job's worker has ended. `worker_error`: the executor's error message if the worker died."""

    def poll(self) -> bool:
        """Do the regular work, several times a second. Returns whether to continue."""

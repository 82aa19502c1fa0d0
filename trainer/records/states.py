"""The states of a trial. The ledger stores them by value; tables show them in the column `status`."""

from enum import StrEnum


class TrialState(StrEnum):
    QUEUED = "queued"  # no job has started, or the last one was interrupted
    RUNNING = "running"  # a job has started and has not ended
    FINISHED = "finished"  # result.json exists
    FAILED = "failed"  # a job ended without a result; the entry says how and why
    KILLED = "killed"  # a stopping rule ended it or skipped it
    INVALID = "invalid"  # the sweep no longer contains it
    LOST = "lost"  # driver and supervisor died, so its end is unknown; the next run repeats it

    @property
    def is_open(self) -> bool:
        """Whether it is still waiting or running."""
        return self in (TrialState.QUEUED, TrialState.RUNNING)

    @property
    def is_terminal(self) -> bool:
        return not self.is_open

    @property
    def is_failed(self) -> bool:
        """Whether it ended without a result."""
        return self.is_terminal and self is not TrialState.FINISHED

"""Pauses a sweep in which every job fails in the same way."""

from collections.abc import Iterable

from trainer.errors import FailureKind
from trainer.records.failures import DISK_ERROR
from trainer.records.ledger import LedgerEntry
from trainer.records.states import TrialState

_ABOUT_ONE_ARM: tuple[FailureKind, ...] = ("diverged",)  # says nothing about the other jobs


class CircuitBreaker:
    """Counts consecutive jobs that failed with the same kind; a success or another kind restarts the count.

    A full disk pauses at once: every other job would train in vain.
    """

    def __init__(self, pause_after: int) -> None:
        self._pause_after = pause_after
        self._kind: FailureKind | None = None
        self._num_alike = 0

    def on_ended(self, entries: Iterable[LedgerEntry]) -> str | None:
        """Count an ended job, given how each of its trials ended. Returns why the sweep must pause, or None."""
        entries = list(entries)
        failed = [entry for entry in entries if entry.failure_kind and entry.failure_kind not in _ABOUT_ONE_ARM]
        if not failed:
            if any(entry.state == TrialState.FINISHED for entry in entries):
                self._kind, self._num_alike = None, 0
            return None
        disk_error = next((entry.reason for entry in failed if entry.reason and DISK_ERROR.search(entry.reason)), None)
        if disk_error is not None:
            return f"a job could not write: {disk_error}"
        kind = failed[0].failure_kind
        self._num_alike = self._num_alike + 1 if kind == self._kind else 1
        self._kind = kind
        if self._num_alike < self._pause_after:
            return None
        return f"{self._num_alike} jobs in a row failed with {kind}, the last one: {failed[0].reason}"

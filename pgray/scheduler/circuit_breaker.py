"""What follows from a failure: try the trial again, leave it as a row, or pause a sweep in which everything fails alike."""

from collections.abc import Iterable

from pgray.store.storage_errors import IN_LOG
from trainer.errors import FailureKind
from trainer.records.ledger import LedgerEntry
from trainer.records.states import TrialState

_ANSWERS: tuple[FailureKind, ...] = ("diverged",)  # these say something about one arm, not about the sweep


class CircuitBreaker:
    """Counts jobs that failed in the same way in a row; a job that ends well, or in another way, starts the count anew.

    A full disk is enough once: every other job would train for nothing.
    """

    def __init__(self, pause_after: int) -> None:
        self._pause_after = pause_after
        self._kind: FailureKind | None = None
        self._streak = 0

    def on_ended(self, entries: Iterable[LedgerEntry]) -> str | None:
        """Hear how the trials of a job ended. Returns why the sweep must pause, or None."""
        entries = list(entries)
        failed = [entry for entry in entries if entry.failure_kind and entry.failure_kind not in _ANSWERS]
        if not failed:
            if any(entry.state == TrialState.FINISHED for entry in entries):
                self._kind, self._streak = None, 0
            return None
        full = next((entry.reason for entry in failed if entry.reason and IN_LOG.search(entry.reason)), None)
        if full is not None:
            return f"a job could not write: {full}"
        kind = failed[0].failure_kind
        self._streak = self._streak + 1 if kind == self._kind else 1
        self._kind = kind
        if self._streak < self._pause_after:
            return None
        return f"{self._streak} jobs in a row failed with {kind}, the last one: {failed[0].reason}"

"""What follows from a failure: try the trial again, leave it as a row, or pause a sweep in which everything fails alike."""

from collections import Counter
from collections.abc import Iterable

from pydantic import Field, model_validator

from pgray.disk import SIGN
from pgray.part import Part
from trainer.config import RuleError
from trainer.errors import FailureKind
from trainer.record import LedgerEntry

RETRY_SOURCE = "retry"
"""`source` of the ledger entry by which `pgray retry` queues a trial: its failures before that no longer count."""

_RETRIES: dict[FailureKind, int] = {"infra": 3, "preempted": 3, "lost": 3}
_NEVER: tuple[FailureKind, ...] = ("user_error", "data_error")  # a rerun would say the same
_ANSWERS: tuple[FailureKind, ...] = ("diverged",)  # these say something about one arm, not about the sweep


class FailurePolicy(Part):
    """The section `failures:` of a sweep file.

    `retries`: how often a trial is tried again after a failure of each kind; a kind left out keeps its default (infra,
    preempted and lost 3, all others 0). `pause_after`: a sweep pauses after so many jobs in a row that failed in the
    same way. `stall_s`: a job that prints nothing for so long is ended as a timeout.
    """

    retries: dict[FailureKind, int] = Field(default_factory=dict)
    pause_after: int = Field(5, ge=1)
    stall_s: float = Field(900.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> "FailurePolicy":
        for kind, count in self.retries.items():
            if kind in _NEVER and count:
                raise RuleError(
                    f"retries.{kind}", count, "would fail the same way again; mend the input and pgray retry"
                )
            if count < 0:
                raise RuleError(f"retries.{kind}", count, "must be 0 or more")
        return self

    def allows_another(self, kind: FailureKind | None, num_failures: int) -> bool:
        """Whether a trial that has failed in this way `num_failures` times is to be tried again."""
        return kind is not None and num_failures <= {**_RETRIES, **self.retries}.get(kind, 0)


def failures_that_count(entries: Iterable[LedgerEntry]) -> dict[str, Counter[FailureKind]]:
    """Trial id -> how often it failed in each way since somebody last asked for a retry; from a ledger in order."""
    ways: dict[str, dict[int, FailureKind]] = {}  # by attempt, since an entry may be repeated
    for entry in entries:
        if entry.source == RETRY_SOURCE:
            ways.pop(entry.trial_id, None)
        elif entry.failure_kind is not None:
            ways.setdefault(entry.trial_id, {})[entry.attempt] = entry.failure_kind
    return {name: Counter(by_attempt.values()) for name, by_attempt in ways.items()}


class Breaker:
    """Counts jobs that failed in the same way in a row; a job that ends well, or in another way, starts the count anew.

    A full disk is enough once: every other job would train for nothing.
    """

    def __init__(self, pause_after: int) -> None:
        self._pause_after = pause_after
        self._kind: FailureKind | None = None
        self._streak = 0

    def heard(self, entries: Iterable[LedgerEntry]) -> str | None:
        """Hear how the trials of a job ended. Returns why the sweep must pause, or None."""
        entries = list(entries)
        failed = [entry for entry in entries if entry.failure_kind and entry.failure_kind not in _ANSWERS]
        if not failed:
            if any(entry.state == "finished" for entry in entries):
                self._kind, self._streak = None, 0
            return None
        full = next((entry.reason for entry in failed if entry.reason and SIGN.search(entry.reason)), None)
        if full is not None:
            return f"a job could not write: {full}"
        kind = failed[0].failure_kind
        self._streak = self._streak + 1 if kind == self._kind else 1
        self._kind = kind
        if self._streak < self._pause_after:
            return None
        return f"{self._streak} jobs in a row failed with {kind}, the last one: {failed[0].reason}"

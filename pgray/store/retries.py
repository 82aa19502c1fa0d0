"""Counts the failures of each trial since the last `pgray retry`."""

from collections import Counter
from collections.abc import Iterable

from trainer.errors import FailureKind
from trainer.records.ledger import LedgerEntry

RETRY_SOURCE = "retry"
"""`source` of the ledger entry by which `pgray retry` queues a trial; earlier failures no longer count."""


def failures_that_count(entries: Iterable[LedgerEntry]) -> dict[str, Counter[FailureKind]]:
    """Return trial id -> failures of each kind since the last `pgray retry`. `entries`: of a ledger, in order."""
    kinds: dict[str, dict[int, FailureKind]] = {}  # by attempt, since the ledger may repeat an entry
    for entry in entries:
        if entry.source == RETRY_SOURCE:
            kinds.pop(entry.trial_id, None)
        elif entry.failure_kind is not None:
            kinds.setdefault(entry.trial_id, {})[entry.attempt] = entry.failure_kind
    return {name: Counter(by_attempt.values()) for name, by_attempt in kinds.items()}

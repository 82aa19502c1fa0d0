"""How often each trial has failed since somebody last asked for a retry."""

from collections import Counter
from collections.abc import Iterable

from trainer.errors import FailureKind
from trainer.records.ledger import LedgerEntry

RETRY_SOURCE = "retry"
"""`source` of the ledger entry by which `pgray retry` queues a trial: its failures before that no longer count."""


def failures_that_count(entries: Iterable[LedgerEntry]) -> dict[str, Counter[FailureKind]]:
    """Trial id -> how often it failed in each way since somebody last asked for a retry; from a ledger in order."""
    ways: dict[str, dict[int, FailureKind]] = {}  # by attempt, since an entry may be repeated
    for entry in entries:
        if entry.source == RETRY_SOURCE:
            ways.pop(entry.trial_id, None)
        elif entry.failure_kind is not None:
            ways.setdefault(entry.trial_id, {})[entry.attempt] = entry.failure_kind
    return {name: Counter(by_attempt.values()) for name, by_attempt in ways.items()}

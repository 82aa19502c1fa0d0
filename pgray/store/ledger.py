"""The ledger: an append-only file with one JSON line per state change of a trial. It is the only truth about a sweep.

Only the driver that holds the run's lock (`pgray/execution/run_lock.py`) writes it. Each line is on disk before the driver
continues. Readers ignore a line that was cut off by a kill or a full disk, and the next append starts on a new line.
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from trainer.errors import FailureKind
from trainer.records.files import naming
from trainer.records.ledger import LedgerEntry, last_entries, read_ledger

RETRY_SOURCE = "retry"
"""`source` of the ledger entry by which `pgray retry` queues a trial; earlier failures no longer count."""


class Ledger:
    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, *entries: LedgerEntry) -> None:
        """Write entries and wait until they are on disk."""
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(entry.model_dump_json(exclude_none=True) + "\n" for entry in entries)
        with naming(self.path), self.path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    text = "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[LedgerEntry]:
        """Return the entries of all complete lines, in order. [] if there is no ledger yet."""
        return read_ledger(self.path)[0]

    def states(self) -> dict[str, LedgerEntry]:
        """Map each trial id to its last entry, in the order in which the trials first appeared."""
        return last_entries(self.entries())


def failures_that_count(entries: Iterable[LedgerEntry]) -> dict[str, Counter[FailureKind]]:
    """Return trial id -> failures of each kind since the last `pgray retry`. `entries`: of a ledger, in order."""
    kinds: dict[str, dict[int, FailureKind]] = {}  # by attempt, since the ledger may repeat an entry
    for entry in entries:
        if entry.source == RETRY_SOURCE:
            kinds.pop(entry.trial_id, None)
        elif entry.failure_kind is not None:
            kinds.setdefault(entry.trial_id, {})[entry.attempt] = entry.failure_kind
    return {name: Counter(by_attempt.values()) for name, by_attempt in kinds.items()}

"""The ledger: an append-only JSON line for every change of state of every trial. The only truth about a sweep.

One writer, the driver that holds the run's lock (`lock.py`); any number of readers. Every line is on disk before the next
thing happens. A line cut off by a kill or a full disk is ignored by readers and closed by the next append, so that it
can never swallow the line after it.
"""

import os
from pathlib import Path

from trainer.records.ledger import LedgerEntry, last_entries, read_ledger


class Ledger:
    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, *entries: LedgerEntry) -> None:
        """Write entries and wait until the disk has them."""
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(entry.model_dump_json(exclude_none=True) + "\n" for entry in entries)
        with self.path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    text = "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[LedgerEntry]:
        """Every whole line, in order. [] where there is no ledger yet."""
        return read_ledger(self.path)[0]

    def states(self) -> dict[str, LedgerEntry]:
        """Trial id -> its last entry, in the order in which the trials first appeared."""
        return last_entries(self.entries())

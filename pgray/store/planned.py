"""The trials that a driver is about to queue, while it still starts Ray or waits for the machine and has no ledger yet.

Also counts what a search will still propose. `pgray status` and `pgray logs` read both.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pgray.store.process_records import parse_record
from trainer.errors import InputError
from trainer.presets.yamlfile import read_yaml
from trainer.records.files import read_json, write_json
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry

PLANNED_FILE = ".planned.json"


@dataclass(frozen=True)
class PlannedRow:
    trial_id: str
    arm: str
    seed: int


def write_planned(root: Path, trials: Iterable[Any]) -> None:
    """Write the trials, which have the fields of `PlannedRow`, into a run folder. The driver removes the file at its end."""
    rows = [asdict(PlannedRow(trial.trial_id, trial.arm, trial.seed)) for trial in trials]
    write_json(root / PLANNED_FILE, {"trials": rows})


def read_planned(root: Path, queued: Iterable[str]) -> list[PlannedRow]:
    """Return the planned trials of a run folder, without those that are in the ledger (`queued`: trial ids)."""
    rows = read_json(root / PLANNED_FILE).get("trials", [])
    found = [parse_record(PlannedRow, row) for row in rows if isinstance(row, dict)]
    known = set(queued)
    return [row for row in found if row and row.trial_id not in known]


def num_proposals_to_come(layout: RunLayout, entries: Iterable[LedgerEntry]) -> int:
    """Return how many proposals the search of a run has still to make; 0 without a search, or if its space is exhausted."""
    try:
        raw = read_yaml(layout.sweep)
    except InputError:
        return 0
    search = raw.get("search") if isinstance(raw, dict) else None
    num_asked = search.get("trials") if isinstance(search, dict) else None
    if not isinstance(num_asked, int) or read_json(layout.study).get("why_exhausted"):
        return 0
    return max(0, num_asked - len({entry.arm for entry in entries if entry.changes is not None}))

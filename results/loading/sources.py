"""Traces every number of a trial: to a file and line of a foreign log, or to the record that the trainer wrote."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.importers.imported_run import BY_IMPORT
from results.importers.store import StoredImport, read_imports
from results.loading.lookup import find_trial
from results.loading.runs import load
from results.schema import COLUMNS, Row, records
from trainer.records.layout import RunLayout
from trainer.records.results import TrialResult
from trainer.records.states import TrialState

_COSTS = ("gpu_held_s", "cost_usd")  # sums over every attempt in the ledger
_IN_LEDGER = ("trial_id", "seed", "train_fingerprint")  # in the result too, but the ledger is the source


@dataclass(frozen=True)
class TracedValue:
    """One column of a trial: the source of its value, or why it is null."""

    column: str
    value: Any
    unit: str
    source: str | None
    why: str | None


def trace_columns(run: str | Path, trial: str) -> list[TracedValue]:
    """Return every column of one trial with its source.

    Args:
        trial: a trial id or the start of one, or an arm with one trial.
    Raises:
        InputError: no such run, or not exactly one such trial.
    """
    layout = RunLayout(Path(run))
    rows = {row["trial_id"]: row for row in records(load(run))}
    row = rows[find_trial(trial, {name: row["arm"] for name, row in rows.items()})]
    stored = next((found for found in read_imports(layout)[0] if found.trial_id == row["trial_id"]), None)
    origin = _ImportedTrial(layout, stored) if stored else _OwnTrial(layout, row)
    traced = []
    for column in COLUMNS:
        name, value = column.name, row[column.name]
        source, why = (None, origin.why_null(name)) if value is None else (origin.source(name), None)
        traced.append(TracedValue(name, value, column.unit, source, why))
    return traced


class _ImportedTrial:
    def __init__(self, layout: RunLayout, stored: StoredImport) -> None:
        self.layout, self.stored = layout, stored

    def source(self, column: str) -> str:
        if column == "seed":
            return self.stored.seed_source
        if column in BY_IMPORT:
            return str(self.layout.imported(self.stored.trial_id))
        return self.stored.run.sources.get(column, self.stored.run.label)

    def why_null(self, column: str) -> str:
        return self.stored.run.nulls.get(column, "not imported")


class _OwnTrial:
    """A trial of this run folder: its numbers are in its result, its state and costs in the ledger."""

    def __init__(self, layout: RunLayout, row: Row) -> None:
        self.status = row["status"]
        self.result = layout.trial(row["trial_id"]).result
        self.ledger = f"{layout.ledger}:{_last_line(layout.ledger, row['trial_id'])}"

    def source(self, column: str) -> str:
        is_in_result = column in TrialResult.model_fields and column not in _IN_LEDGER
        return str(self.result) if is_in_result and self.status == TrialState.FINISHED else self.ledger

    def why_null(self, column: str) -> str:
        if column in TrialResult.model_fields and self.status != TrialState.FINISHED:
            return f"the trial is {self.status}"
        return "unknown" if column in _COSTS else "not measured, or does not apply"


def _last_line(ledger: Path, trial_id: str) -> int:
    """Return the number of the last line of the ledger about this trial."""
    last = 0
    for number, line in enumerate(ledger.read_bytes().split(b"\n"), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("trial_id") == trial_id:
            last = number
    return last

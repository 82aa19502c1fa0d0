"""Where every number of one trial came from: file and line of a foreign log, or the record that the trainer wrote."""

import json
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

_FROM_JOBS = ("gpu_held_s", "cost_usd")  # sums over every attempt in the ledger


def explain(run: str | Path, trial: str) -> list[dict[str, Any]]:
    """Every column of one trial: `column`, `value`, `unit`, `source` of a value, `why` of a null.

    Args:
        trial: a trial id or the start of one, or an arm with one trial.
    Raises:
        InputError: no run there, or not exactly one such trial.
    """
    layout = RunLayout(Path(run))
    rows = {row["trial_id"]: row for row in records(load(run))}
    row = rows[find_trial(trial, {name: row["arm"] for name, row in rows.items()})]
    imports = {stored.trial_id: stored for stored in read_imports(layout)[0]}
    stored = imports.get(row["trial_id"])
    origin = _Imported(layout, stored) if stored else _Own(layout, row)
    lines = []
    for column in COLUMNS:
        value = row[column.name]
        source, why = (None, origin.why(column.name)) if value is None else (origin.source(column.name), None)
        lines.append({"column": column.name, "value": value, "unit": column.unit, "source": source, "why": why})
    return lines


class _Imported:
    def __init__(self, layout: RunLayout, stored: StoredImport) -> None:
        self.layout, self.stored = layout, stored

    def source(self, column: str) -> str:
        if column == "seed":
            return self.stored.seed_source
        if column in BY_IMPORT:
            return str(self.layout.imported(self.stored.trial_id))
        return self.stored.run.sources.get(column, self.stored.run.label)

    def why(self, column: str) -> str:
        return self.stored.run.nulls.get(column, "not imported")


class _Own:
    """A trial of this run folder: its numbers stand in its result, its state and costs in the ledger."""

    def __init__(self, layout: RunLayout, row: Row) -> None:
        self.row = row
        self.result = layout.trial(row["trial_id"]).result
        self.ledger = f"{layout.ledger}:{_last_line(layout.ledger, row['trial_id'])}"

    def source(self, column: str) -> str:
        is_measured = self.row["status"] == TrialState.FINISHED and column in TrialResult.model_fields
        return (
            str(self.result) if is_measured and column not in ("trial_id", "seed", "train_fingerprint") else self.ledger
        )

    def why(self, column: str) -> str:
        if column in TrialResult.model_fields and self.row["status"] != TrialState.FINISHED:
            return f"the trial is {self.row['status']}"
        return "not known" if column in _FROM_JOBS else "not measured, or does not apply"


def _last_line(ledger: Path, trial_id: str) -> int:
    """The number of the last line of the ledger that is about this trial."""
    last = 0
    for number, line in enumerate(ledger.read_bytes().split(b"\n"), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("trial_id") == trial_id:
            last = number
    return last

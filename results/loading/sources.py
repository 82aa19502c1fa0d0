"""Traces every number of a trial: to a file and line of a foreign log, or to the record that the trainer wrote."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.importers.imported_run import BY_IMPORT
from results.importers.store import read_imports
from results.loading.lookup import find_trial, sweep_names
from results.loading.runs import load
from results.schema import COLUMNS, NAMES, Row, records
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
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
    row = rows[find_trial(trial, {name: row["arm"] for name, row in rows.items()}, sweep_names(layout))]
    stored = next((found for found in read_imports(layout)[0] if found.trial_id == row["trial_id"]), None)
    if stored:
        by_import = dict.fromkeys(BY_IMPORT, str(layout.imported(stored.trial_id)))
        sources = dict.fromkeys(NAMES, stored.run.label) | stored.run.sources | by_import | {"seed": stored.seed_source}
        nulls = dict.fromkeys(NAMES, "not imported") | stored.run.nulls
    else:
        sources, nulls = _origins(layout, row)
    return [
        TracedValue(c.name, None, c.unit, None, nulls[c.name])
        if row[c.name] is None
        else TracedValue(c.name, row[c.name], c.unit, sources[c.name], None)
        for c in COLUMNS
    ]


def _origins(layout: RunLayout, row: Row) -> tuple[dict[str, str], dict[str, str]]:
    """Return the source of every column of a trial of this run folder, and why the column is null if it is."""
    is_finished = row["status"] == TrialState.FINISHED
    in_result = [name for name in NAMES if name in TrialResult.model_fields]
    ledger = f"{layout.ledger}:{_last_line(layout.ledger, row['trial_id'])}"
    sources = dict.fromkeys(NAMES, ledger)
    nulls = dict.fromkeys(NAMES, "not measured, or does not apply") | dict.fromkeys(_COSTS, "unknown")
    if is_finished:
        result = str(layout.trial(row["trial_id"]).result)
        sources |= {name: result for name in in_result if name not in _IN_LEDGER}
    else:
        nulls |= dict.fromkeys(in_result, f"the trial is {row['status']}")
    return sources, nulls


def _last_line(ledger: Path, trial_id: str) -> int:
    """Return the number of the last line of the ledger about this trial."""
    last = 0
    for number, line in enumerate(ledger.read_bytes().split(b"\n"), start=1):
        with suppress(ValueError):
            if LedgerEntry.model_validate_json(line).trial_id == trial_id:
                last = number
    return last

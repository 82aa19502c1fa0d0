"""Chooses the metric that arms are compared by, where none is named: one choice for tables, charts and `results.ablation`."""

from collections.abc import Sequence

import pandas as pd

from results.loading.runs import current
from results.schema import Row, records
from trainer.records.results import HEADLINES
from trainer.records.states import TrialState


def headline(rows: Sequence[Row]) -> str:
    """Return the first of `HEADLINES` that every finished trial has, else the last of them."""
    finished = _finished(rows)
    complete = (name for name in HEADLINES if finished and all(row.get(name) is not None for row in finished))
    return next(complete, HEADLINES[-1])


def headline_of(trials: pd.DataFrame) -> str:
    """Return the metric by which to compare the current rows of a frame as from `results.load`."""
    return headline(records(current(trials)))


def fallback_note(rows: Sequence[Row], metric: str) -> str | None:
    """Return which arms lack a better metric than this one, so that the others' cannot be compared; None if none does."""
    for name in HEADLINES[: HEADLINES.index(metric)] if metric in HEADLINES else ():
        finished = _finished(rows)
        lacking = [row for row in finished if row[name] is None]
        if len(lacking) < len(finished):
            arms = ", ".join(dict.fromkeys(str(row["arm"]) for row in lacking))
            return f"arms are compared by {metric}, because {len(lacking)} of {len(finished)} trials have no {name}: {arms}"
    return None


def _finished(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.get("status", TrialState.FINISHED) == TrialState.FINISHED]

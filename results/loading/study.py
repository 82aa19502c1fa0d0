"""Reads `study.json` of a run folder: the proposals of a search, the best of them and the parameter importances."""

from typing import Literal

from pydantic import ValidationError

from trainer.records.layout import RunLayout
from trainer.records.record import Record


class ProposalSummary(Record):
    """One proposal. `values`: objectives and constrained columns, means over seeds; only a `complete` one is scored."""

    name: str
    state: str
    is_feasible: bool
    values: dict[str, float]


class StudySummary(Record):
    """A search. `objectives`: column -> direction; `best`: names, the Pareto set if there are several objectives."""

    objectives: dict[str, Literal["min", "max"]]
    constraints: list[str]
    best: list[str]
    importances: dict[str, float]
    trials: list[ProposalSummary]

    @property
    def scored(self) -> list[ProposalSummary]:
        return [trial for trial in self.trials if trial.state == "complete"]


def read_study(layout: RunLayout) -> StudySummary | None:
    """Return the search of a run; None if the run is no search or its study.json cannot be read."""
    try:
        return StudySummary.model_validate_json(layout.study.read_bytes())
    except (OSError, ValidationError):
        return None

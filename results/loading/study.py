"""Reads `study.json` of a run folder: the proposals of a search, the best of them and the parameter importances."""

from typing import Literal

from pydantic import Field, ValidationError

from results.loading.runs import first_line
from trainer.errors import InputError
from trainer.records.layout import RunLayout
from trainer.records.record import Record


class ProposalSummary(Record):
    """One proposal. `values`: objectives and constrained columns, means over seeds; only a `complete` one is scored."""

    name: str
    state: str = ""
    is_feasible: bool = False
    values: dict[str, float] = Field(default_factory=dict)


class StudySummary(Record):
    """A search. `objectives`: column -> direction; `best`: names, the Pareto set if there are several objectives."""

    objectives: dict[str, Literal["min", "max"]] = Field(default_factory=dict)
    constraints: list[str] = Field(default_factory=list)
    best: list[str] = Field(default_factory=list)
    importances: dict[str, float] = Field(default_factory=dict)
    trials: list[ProposalSummary] = Field(default_factory=list)

    @property
    def scored(self) -> list[ProposalSummary]:
        return [t for t in self.trials if t.state == "complete" and self.objectives.keys() <= t.values.keys()]


def read_study(layout: RunLayout) -> StudySummary | None:
    """Return the search of a run; None without a study.json. Raises InputError if it cannot be read."""
    try:
        return StudySummary.model_validate_json(layout.study.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        fix = f"{first_line(error)}; run the sweep again to rewrite the file"
        raise InputError(layout.study.name, "search", "unreadable", fix) from None

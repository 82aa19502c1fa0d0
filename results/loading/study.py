"""Reads `study.json` of a run folder: the proposals of a search, the best of them and the parameter importances."""

from typing import Any, Literal

from pydantic import Field, ValidationError

from results.loading.runs import first_line
from trainer.errors import InputError
from trainer.records.layout import RunLayout
from trainer.records.record import Record


class ProposalSummary(Record):
    """One proposal. Only a `complete` one is scored.

    `values`: objectives and constrained columns, means over seeds. `excess`: constraint -> how far the worst seed is on the
    wrong side. `params`: config key -> value. `seeds`: seed -> state.
    """

    name: str
    state: str = ""
    reason: str | None = None
    is_feasible: bool = False
    params: dict[str, Any] = Field(default_factory=dict)
    values: dict[str, float] = Field(default_factory=dict)
    excess: dict[str, float] = Field(default_factory=dict)
    seeds: dict[str, str] = Field(default_factory=dict)

    @property
    def broken(self) -> str | None:
        """`steps >= 100 by 1`; None if no constraint is broken."""
        return " and ".join(f"{text} by {excess:,.6g}" for text, excess in self.excess.items() if excess > 0) or None


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

    @property
    def limits(self) -> dict[str, float]:
        """The constrained columns and their limits."""
        words = [text.split() for text in self.constraints]
        return {column: float(limit) for column, _, limit in words}

    @property
    def parameters(self) -> list[str]:
        """The searched config keys, the most important first."""
        keys = dict.fromkeys(key for trial in self.trials for key in trial.params)
        return sorted(keys, key=lambda key: -self.importances.get(key, 0.0))


def read_study(layout: RunLayout) -> StudySummary | None:
    """Return the search of a run; None without a study.json. Raises InputError if it cannot be read."""
    try:
        return StudySummary.model_validate_json(layout.study.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        fix = f"{first_line(error)}; run the sweep again to rewrite the file"
        raise InputError(layout.study.name, "search", "unreadable", fix) from None

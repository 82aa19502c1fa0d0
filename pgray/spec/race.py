"""The section `race` of a sweep file: seed racing, which drops arms that are unlikely to be the best."""

from typing import Self

from pydantic import Field, model_validator

from pgray.spec.sections import SweepSection
from trainer.records.results import LOWER_IS_BETTER
from trainer.section import RuleError


class Race(SweepSection):
    """`first`: seeds that every arm gets. `confidence`: probability that the best arm is not dropped."""

    metric: str = "sliding_bpb"
    first: int = Field(2, ge=2)
    confidence: float = Field(0.95, ge=0.5, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.metric not in LOWER_IS_BETTER:
            raise RuleError("metric", self.metric, f"unknown metric; use one of {', '.join(LOWER_IS_BETTER)}")
        return self

    @property
    def text(self) -> str:
        return f"race on {self.metric}: after {self.first} seeds only arms that may be best ({self.confidence:.0%})"

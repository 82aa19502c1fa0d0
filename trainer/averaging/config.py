"""The section `average`: which average of the weights is exported."""

from typing import Literal, Self

from pydantic import Field, model_validator

from trainer.section import RuleError, Section


class AverageConfig(Section):
    """Which weights are exported. See `averaging.py`; averaging never changes the training trajectory."""

    kind: Literal["none", "ema", "swa", "lawa", "sqwa"] = "none"
    decay: float = Field(0.997, ge=0, lt=1)
    half_life_frac: float | None = Field(None, gt=0)  # instead of decay: EMA half-life as a share of the steps
    start: Literal["immediately", "warmdown", "qat"] = "immediately"
    every: int = Field(0, ge=0)
    count: int = Field(0, ge=0)
    lr_below: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "swa" and not (self.count or self.every):
            raise RuleError("count", self.count, "swa needs count (snapshots by LR multiplier) or every (steps)")
        if self.kind == "lawa" and self.every and not self.count:
            raise RuleError("count", self.count, "lawa with every needs count, how many snapshots it keeps")
        return self

"""The base of all config sections, and `Start`, the gate that several sections use."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RuleError(ValueError):
    """A broken rule between fields: the key within the section, its value, and the fix."""

    def __init__(self, key: str, value: object, fix: str) -> None:
        self.key, self.value, self.fix = key, value, fix
        super().__init__(f"{key}: {value}: {fix}")


Gate = Literal["immediately", "step", "lr_scale", "wallclock_frac"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Start(Section):
    """When a gate opens: from step `value` on, below LR multiplier `value`, or after share `value` of the run."""

    kind: Gate = "immediately"  # unit of value; immediately = from step 0
    value: float = Field(0.0, ge=0)  # step, LR multiplier, or share of the run

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "immediately" and self.value:
            raise RuleError("value", self.value, "kind immediately takes no value; set start.kind too")
        if self.kind in ("lr_scale", "wallclock_frac") and not 0 < self.value <= 1:
            raise RuleError("value", self.value, f"must be above 0 and at most 1 for kind {self.kind}")
        return self

"""The base of all config sections, and `Start`, the gate that several sections use."""

from collections.abc import Iterator
from operator import attrgetter
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RuleError(ValueError):
    """A broken rule between fields: the key within the section, its value, and the fix."""

    def __init__(self, key: str, value: object, fix: str) -> None:
        self.key, self.value, self.fix = key, value, fix
        super().__init__(f"{key}: {value}: {fix}")


Gate = Literal["immediately", "step", "lr_scale", "wallclock_frac"]

Rules = Iterator[tuple[object, str, str] | tuple[object, str, str, object]]
"""(whether the rule is broken, dotted key, fix), and the value to show if it is not the key's."""


class Section(BaseModel):
    """A frozen model that refuses unknown keys, does not convert types, and checks the rules between its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def rules(self) -> Rules:
        """Yield the rules between fields in order. The first broken one is raised as a RuleError."""
        return iter(())

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for is_broken, key, fix, *shown in self.rules():
            if is_broken:
                value = shown[0] if shown else attrgetter(key)(self)
                raise RuleError(key, list(value) if isinstance(value, tuple) else value, fix)
        return self


class Start(Section):
    """When a gate opens: from step `value` on, below LR multiplier `value`, or after share `value` of the run."""

    kind: Gate = "immediately"  # unit of value; immediately = from step 0
    value: float = Field(0.0, ge=0)  # step, LR multiplier, or share of the run

    def rules(self) -> Rules:
        is_immediate, is_share = self.kind == "immediately", self.kind in ("lr_scale", "wallclock_frac")
        yield is_immediate and self.value, "value", "kind immediately takes no value; set start.kind too"
        yield is_share and not 0 < self.value <= 1, "value", f"must be above 0 and at most 1 for kind {self.kind}"

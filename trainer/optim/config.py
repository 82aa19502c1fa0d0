"""The section `optim`: learning rates, Muon, weight decay, warmdown."""

from typing import Literal, Self

from pydantic import Field, model_validator

from trainer.section import RuleError, Section


class WarmdownConfig(Section):
    """Linear fall of the LR multiplier to `min_lr`. `value`: iterations, or a share of the training clock."""

    kind: Literal["iterations", "wallclock_frac"] = "iterations"
    value: float = Field(1200, ge=0)
    min_lr: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "wallclock_frac" and self.value > 1:
            raise RuleError("value", self.value, "must be within 0..1 for kind wallclock_frac")
        return self


class OptimConfig(Section):
    matrix_lr: float = Field(0.04, ge=0)
    scalar_lr: float = Field(0.04, ge=0)
    embed_lr: float = Field(0.05, ge=0)
    muon_momentum: float = Field(0.95, ge=0, lt=1)
    muon_momentum_start: float = Field(0.85, ge=0, lt=1)
    muon_momentum_steps: int = Field(500, ge=0)
    muon_variant: Literal["muon", "muon_vs"] = "muon"
    ns_steps: int = Field(5, ge=0, le=20)
    weight_decay: float = Field(0.0, ge=0)
    adam_weight_decay: float = Field(0.0, ge=0)
    warmdown: WarmdownConfig = WarmdownConfig()

"""The section `optim`: learning rates, Muon, weight decay, warmdown."""

from typing import Literal

from pydantic import Field

from trainer.section import Rules, Section

MuonVariant = Literal["muon", "muon_vs", "muon_vs_pr1032"]
"""muon_vs: as in arXiv:2601.14603; muon_vs_pr1032: as in that pull request's script."""


class WarmdownConfig(Section):
    """Linear fall of the LR multiplier from 1 to `min_lr` at the end of the run."""

    kind: Literal["iterations", "wallclock_frac"] = "iterations"  # unit of value: steps, or a share of the run
    value: float = Field(1200, ge=0)  # length of the warmdown; 0 = constant LR
    min_lr: float = Field(0.0, ge=0, le=1)  # LR multiplier at the end

    def rules(self) -> Rules:
        is_long = self.kind == "wallclock_frac" and self.value > 1
        yield is_long, "value", "must be within 0..1 for kind wallclock_frac"


class OptimConfig(Section):
    matrix_lr: float = Field(0.04, ge=0)  # Muon: attention and MLP matrices
    scalar_lr: float = Field(0.04, ge=0)  # AdamW: all parameters that are neither matrices of a layer nor token tables
    embed_lr: float = Field(0.05, ge=0)  # AdamW: token, bigram and value embedding tables
    muon_momentum: float = Field(0.95, ge=0, lt=1)  # after the ramp
    muon_momentum_start: float = Field(0.85, ge=0, lt=1)  # at step 0
    muon_momentum_steps: int = Field(500, ge=0)  # steps of the linear ramp; 0 = no ramp
    muon_variant: MuonVariant = "muon"  # muon_vs: divide the update by its running deviation
    ns_steps: int = Field(5, ge=0, le=20)  # Newton-Schulz iterations; 0 only normalizes
    weight_decay: float = Field(0.0, ge=0)  # Muon parameters, decoupled
    adam_weight_decay: float = Field(0.0, ge=0)  # AdamW parameters, decoupled
    warmdown: WarmdownConfig = WarmdownConfig()

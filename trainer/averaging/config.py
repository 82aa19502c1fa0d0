"""The section `average`: which average of the weights is exported. Torch-free.

To add an average: a `kind` here, its line in ACTING_KEYS, and a module of the same name in this package.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from trainer.section import Rules, Section

AverageKind = Literal["none", "ema", "swa", "lawa", "sqwa"]


@dataclass(frozen=True)
class ActingKeys:
    """The config keys that change the result of one kind of average, and with it the average's key in a run folder."""

    average: tuple[str, ...] = ()  # of the section `average`
    qat: tuple[str, ...] = ()  # of the section `qat`, while QAT is enabled
    uses_quant: bool = False  # whether the average quantizes the weights by the section `quant`


ACTING_KEYS: dict[AverageKind, ActingKeys] = {
    "none": ActingKeys(),
    "ema": ActingKeys(("decay", "half_life_frac", "start"), qat=("reset_ema",)),
    "swa": ActingKeys(("every", "count", "lr_below"), qat=("stop_swa",)),
    "lawa": ActingKeys(("every", "count")),
    "sqwa": ActingKeys(("decay", "half_life_frac", "start", "every", "lr_below"), qat=("reset_ema",), uses_quant=True),
}


class AverageConfig(Section):
    """Which average of the weights is exported. Averaging never changes training itself, so arms share the training run."""

    kind: AverageKind = "none"  # none exports the last weights
    decay: float = Field(0.997, ge=0, lt=1)  # EMA decay per step; for ema, and for the EMA inside sqwa
    half_life_frac: float | None = Field(None, gt=0)  # replaces decay: EMA half-life as a share of the run
    start: Literal["immediately", "warmdown", "qat"] = "immediately"  # when the EMA begins
    every: int = Field(0, ge=0)  # steps between snapshots; 0 = swa: by count, lawa and sqwa: every step
    count: int = Field(0, ge=0)  # swa: snapshots in the warmdown; lawa: snapshots kept, 0 = whole warmdown
    lr_below: float | None = Field(None, gt=0, le=1)  # snapshots only below this LR multiplier; null: swa 0.4, sqwa 0.2

    def rules(self) -> Rules:
        is_empty = self.kind == "swa" and not (self.count or self.every)
        yield is_empty, "count", "swa needs count (snapshots by LR multiplier) or every (steps)"
        is_endless = self.kind == "lawa" and self.every and not self.count
        yield is_endless, "count", "lawa with every needs count, how many snapshots it keeps"

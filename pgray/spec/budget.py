"""The section `budget` of a sweep file."""

import math
from typing import Self

from pydantic import Field, model_validator

from pgray.spec.sections import SweepSection
from trainer.section import RuleError


class Budget(SweepSection):
    """Limits of a sweep over all its launches. `usd_per_gpu_hour` also sets the price in the column `cost_usd`."""

    gpu_hours: float | None = Field(None, gt=0)
    usd: float | None = Field(None, gt=0)
    usd_per_gpu_hour: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.usd is not None and not self.usd_per_gpu_hour:
            raise RuleError("usd", self.usd, "needs a price; add usd_per_gpu_hour, above 0")
        return self

    @property
    def limit_gpu_s(self) -> float:
        """The GPU seconds that may be spent: the lower of the two limits, infinity without a limit."""
        by_hours = math.inf if self.gpu_hours is None else self.gpu_hours * 3600
        by_price = self.usd / self.usd_per_gpu_hour * 3600 if self.usd and self.usd_per_gpu_hour else math.inf
        return min(by_hours, by_price)

"""The section `budget` of a sweep file: GPU-hours and dollars."""

import math
from typing import Self

from pydantic import Field, model_validator

from pgray.spec.sections import SweepSection
from trainer.section import RuleError


class Budget(SweepSection):
    """Limits of a sweep over all its launches. `usd_per_gpu_hour` also prices the table's `cost_usd`."""

    gpu_hours: float | None = Field(None, gt=0)
    usd: float | None = Field(None, gt=0)
    usd_per_gpu_hour: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.usd is not None and not self.usd_per_gpu_hour:
            raise RuleError("usd", self.usd, "cannot be kept without a price; add usd_per_gpu_hour, above 0")
        return self

    @property
    def limit_gpu_s(self) -> float:
        """GPU seconds that may be spent: the tighter of the two limits, infinity without one."""
        limits = [math.inf]
        if self.gpu_hours is not None:
            limits.append(self.gpu_hours * 3600)
        if self.usd is not None and self.usd_per_gpu_hour:
            limits.append(self.usd / self.usd_per_gpu_hour * 3600)
        return min(limits)

"""What a sweep may spend: GPU-hours and dollars, as one purse of GPU seconds that a job draws on before it is launched.

The ledger is the truth: `spent_gpu_s` of its entries is what has been spent, so a restarted driver starts from the same
number. A whole job is reserved before launch, so a limit is kept by jobs that never start, not by jobs cut in two.
"""

import math
from collections.abc import Iterable

from pgray.spec.budget import Budget
from trainer.records.ledger import LedgerEntry, job_costs

_ROUNDING_S = 1e-6  # sums of seconds are not exact; a job that just fits, fits


def spent_gpu_s(entries: Iterable[LedgerEntry]) -> float:
    """GPU seconds held over all attempts of all trials in a ledger, failed and superseded ones included."""
    return math.fsum(entry.gpu_held_s or 0.0 for entry in job_costs(entries).values())


class BudgetTracker:
    """What is left of a budget while jobs run: limit - spent - reserved, in GPU seconds.

    Args:
        budget: None = no limit.
        spent_gpu_s: by earlier launches; see the function of that name.
    """

    def __init__(self, budget: Budget | None, spent_gpu_s: float) -> None:
        self._budget = budget or Budget()
        self._spent_gpu_s = spent_gpu_s
        self._reserved: dict[str, float] = {}

    @property
    def left_gpu_s(self) -> float:
        """Infinity without a limit; below zero where jobs held their GPUs for longer than was reserved."""
        return self._budget.limit_gpu_s - self._spent_gpu_s - math.fsum(self._reserved.values())

    def can_reserve(self, gpu_s: float) -> bool:
        """Whether a job of at most so many GPU seconds may start. A job without GPUs always may."""
        return gpu_s <= 0 or gpu_s <= self.left_gpu_s + _ROUNDING_S

    def reserve(self, job_id: str, gpu_s: float) -> None:
        """Set aside what a job may cost. Raises ValueError where it cannot be reserved, or is already."""
        if job_id in self._reserved or not self.can_reserve(gpu_s):
            raise ValueError(f"cannot reserve {gpu_s:.0f} GPU seconds for {job_id}: {self.text}")
        self._reserved[job_id] = gpu_s

    def settle(self, job_id: str, held_gpu_s: float) -> None:
        """Replace a job's reservation by what it held. A job that was never reserved is only booked."""
        self._reserved.pop(job_id, None)
        self._spent_gpu_s += held_gpu_s

    @property
    def text(self) -> str:
        """`3.10 of 24.00 GPU-hours spent ($8.34 of $64.56), 1.30 reserved, 19.60 left`."""
        limit, price = self._budget.limit_gpu_s / 3600, self._budget.usd_per_gpu_hour
        spent, reserved = self._spent_gpu_s / 3600, math.fsum(self._reserved.values()) / 3600
        is_limited = math.isfinite(limit)
        said = f"{spent:.2f} of {limit:.2f} GPU-hours spent" if is_limited else f"{spent:.2f} GPU-hours spent"
        if price is not None:
            said += f" (${spent * price:.2f} of ${limit * price:.2f})" if is_limited else f" (${spent * price:.2f})"
        said += f", {reserved:.2f} reserved" if reserved else ""
        return f"{said}, {max(0.0, self.left_gpu_s) / 3600:.2f} left" if is_limited else f"{said}, no limit"

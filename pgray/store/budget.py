"""Keeps a sweep within its budget of GPU-hours and dollars, both counted in GPU seconds.

A whole job is reserved before it starts, so that the limit is kept by not starting jobs, never by cutting one off. What has
been spent is computed from the ledger, so a restarted driver starts from the same number.
"""

import math
from collections.abc import Iterable

from pgray.spec.sections import Budget
from trainer.records.ledger import LedgerEntry, job_costs

_ROUNDING_S = 1e-6  # sums of seconds are not exact, and a job that just fits must pass


def spent_gpu_s(entries: Iterable[LedgerEntry]) -> float:
    """Return the GPU seconds held by all attempts of all trials in a ledger, failed and superseded ones included."""
    return math.fsum(entry.gpu_held_s or 0.0 for entry in job_costs(entries).values())


class BudgetTracker:
    """Tracks a budget while jobs run: limit - spent - reserved, in GPU seconds.

    Args:
        budget: None for no limit.
        spent_gpu_s: GPU seconds that earlier launches have spent.
    """

    def __init__(self, budget: Budget | None, spent_gpu_s: float) -> None:
        self._budget = budget or Budget()
        self._spent_gpu_s = spent_gpu_s
        self._reserved: dict[str, float] = {}

    @property
    def left_gpu_s(self) -> float:
        """Infinity without a limit; below zero if jobs held their GPUs for longer than was reserved."""
        return self._budget.limit_gpu_s - self._spent_gpu_s - math.fsum(self._reserved.values())

    def can_reserve(self, gpu_s: float) -> bool:
        """Whether a job of at most `gpu_s` GPU seconds may start. A job without GPUs always may."""
        return gpu_s <= 0 or gpu_s <= self.left_gpu_s + _ROUNDING_S

    def reserve(self, job_id: str, gpu_s: float) -> None:
        """Reserve GPU seconds for a job. Raises ValueError if there are too few left, or the job has a reservation."""
        if job_id in self._reserved or not self.can_reserve(gpu_s):
            raise ValueError(f"cannot reserve {gpu_s:.0f} GPU seconds for {job_id}: {self.text}")
        self._reserved[job_id] = gpu_s

    def book(self, job_id: str, held_gpu_s: float) -> None:
        """Count what a job held as spent, and drop its reservation if it had one."""
        self._reserved.pop(job_id, None)
        self._spent_gpu_s += held_gpu_s

    @property
    def text(self) -> str:
        """`3.10 of 24.00 GPU-hours spent ($8.34 of $64.56), 1.30 reserved, 19.60 left`."""
        limit, price = self._budget.limit_gpu_s / 3600, self._budget.usd_per_gpu_hour
        spent, reserved = self._spent_gpu_s / 3600, math.fsum(self._reserved.values()) / 3600
        is_limited = math.isfinite(limit)
        text = f"{spent:.2f} of {limit:.2f} GPU-hours spent" if is_limited else f"{spent:.2f} GPU-hours spent"
        if price is not None:
            text += f" (${spent * price:.2f} of ${limit * price:.2f})" if is_limited else f" (${spent * price:.2f})"
        text += f", {reserved:.2f} reserved" if reserved else ""
        return f"{text}, {max(0.0, self.left_gpu_s) / 3600:.2f} left" if is_limited else f"{text}, no limit"

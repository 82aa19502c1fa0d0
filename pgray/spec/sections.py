"""The short sections of a sweep file. The longer ones are in `pgray/spec/search.py` and `pgray/spec/stopping.py`."""

import math
from typing import Any

from pydantic import Field, NonNegativeInt

from pgray.spec.search import Constraints
from trainer.errors import FailureKind
from trainer.section import Rules, Section

_DEFAULT_RETRIES: dict[FailureKind, int] = {"infra": 3, "preempted": 3, "lost": 3}
_NEVER_RETRIED: tuple[FailureKind, ...] = ("user_error", "data_error")  # a rerun would fail in the same way


class Resources(Section):
    """The resources of one job. A field that is left out is taken from the preset."""

    gpus: int | None = Field(None, ge=0)
    cpus: int | None = Field(None, ge=1)
    nodes: int | None = Field(None, ge=1)


class LeaveOneOut(Section):
    """`full`: overrides of the arm with every part. `parts`: name -> overrides that replace the part's keys in `full`.

    Each key of a part must be set in `full`. A part that repeats the value in `full` resets the key to the preset's value.
    """

    full: dict[str, Any]
    parts: dict[str, dict[str, Any]]

    def rules(self) -> Rules:
        yield not self.parts, "parts", "is empty; name the parts to leave out one at a time"


class PresetOverrides(Section):
    """Replacements that apply at one preset only, for values that make sense at one model size."""

    set: dict[str, Any] = Field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    constraints: Constraints = Field(default_factory=dict)  # only in a search


class Confirmation(Section):
    """Says that the arms were chosen from another run. `pgray confirm` writes it.

    `run`: the folder's name. `metric`: the column that ranked the arms. `seeds`: those of that run; this sweep must use others,
    since the best of many arms was lucky on the seeds that chose it.
    """

    run: str
    metric: str | None = None
    seeds: list[int] = Field(min_length=1)


class Budget(Section):
    """Limits of a sweep over all its launches. `usd_per_gpu_hour` also sets the price in the column `cost_usd`."""

    gpu_hours: float | None = Field(None, gt=0)
    usd: float | None = Field(None, gt=0)
    usd_per_gpu_hour: float | None = Field(None, ge=0)

    def rules(self) -> Rules:
        is_unpriced = self.usd is not None and not self.usd_per_gpu_hour
        yield is_unpriced, "usd", "needs a price; add usd_per_gpu_hour, above 0"

    @property
    def limits(self) -> list[str]:
        """The keys that limit something; a price alone does not."""
        return [key for key in ("gpu_hours", "usd") if getattr(self, key) is not None]

    @property
    def limit_gpu_s(self) -> float:
        """The GPU seconds that may be spent: the lower of the two limits, infinity without a limit."""
        by_hours = math.inf if self.gpu_hours is None else self.gpu_hours * 3600
        by_price = self.usd / self.usd_per_gpu_hour * 3600 if self.usd and self.usd_per_gpu_hour else math.inf
        return min(by_hours, by_price)


class FailurePolicy(Section):
    """How a sweep reacts to failures.

    `retries`: failure kind -> how often a trial is retried; kinds that are left out keep their default (3 for infra,
    preempted and lost, 0 for all others). `pause_after`: pause the sweep after this many jobs in a row failed in the same
    way. `stall_s`: stop a job as a timeout if it prints nothing for this long.
    """

    retries: dict[FailureKind, NonNegativeInt] = Field(default_factory=dict)
    pause_after: int = Field(5, ge=1)
    stall_s: float = Field(900.0, gt=0)

    def rules(self) -> Rules:
        for kind in _NEVER_RETRIED:
            retries = self.retries.get(kind)
            yield retries, f"retries.{kind}", "would fail in the same way; fix the input, then pgray retry", retries

    def allows_retry(self, kind: FailureKind | None, num_failures: int) -> bool:
        """Return whether to retry a trial that has failed `num_failures` times with this kind of failure."""
        return kind is not None and num_failures <= {**_DEFAULT_RETRIES, **self.retries}.get(kind, 0)

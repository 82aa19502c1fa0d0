"""The section `failures` of a sweep file: retries of each kind of failure, and when to pause the sweep."""

from typing import Self

from pydantic import Field, model_validator

from pgray.spec.sections import SweepSection
from trainer.errors import FailureKind
from trainer.section import RuleError

_DEFAULT_RETRIES: dict[FailureKind, int] = {"infra": 3, "preempted": 3, "lost": 3}
_NEVER_RETRIED: tuple[FailureKind, ...] = ("user_error", "data_error")  # a rerun would fail in the same way


class FailurePolicy(SweepSection):
    """How a sweep reacts to failures.

    `retries`: failure kind -> how often a trial is retried; kinds that are left out keep their default (3 for infra,
    preempted and lost, 0 for all others). `pause_after`: pause the sweep after this many jobs in a row failed in the same
    way. `stall_s`: stop a job as a timeout if it prints nothing for this long.
    """

    retries: dict[FailureKind, int] = Field(default_factory=dict)
    pause_after: int = Field(5, ge=1)
    stall_s: float = Field(900.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for kind, count in self.retries.items():
            if kind in _NEVER_RETRIED and count:
                raise RuleError(f"retries.{kind}", count, "would fail in the same way; fix the input, then pgray retry")
            if count < 0:
                raise RuleError(f"retries.{kind}", count, "must be 0 or more")
        return self

    def allows_retry(self, kind: FailureKind | None, num_failures: int) -> bool:
        """Return whether to retry a trial that has failed `num_failures` times with this kind of failure."""
        return kind is not None and num_failures <= {**_DEFAULT_RETRIES, **self.retries}.get(kind, 0)

"""The section `failures` of a sweep file: how often each kind of failure is retried, and when to pause."""

from pydantic import Field, model_validator

from pgray.spec.sections import SweepSection
from trainer.errors import FailureKind
from trainer.section import RuleError

_RETRIES: dict[FailureKind, int] = {"infra": 3, "preempted": 3, "lost": 3}


_NEVER: tuple[FailureKind, ...] = ("user_error", "data_error")  # a rerun would say the same


class FailurePolicy(SweepSection):
    """The section `failures:` of a sweep file.

    `retries`: how often a trial is tried again after a failure of each kind; a kind left out keeps its default (infra,
    preempted and lost 3, all others 0). `pause_after`: a sweep pauses after so many jobs in a row that failed in the
    same way. `stall_s`: a job that prints nothing for so long is ended as a timeout.
    """

    retries: dict[FailureKind, int] = Field(default_factory=dict)
    pause_after: int = Field(5, ge=1)
    stall_s: float = Field(900.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> "FailurePolicy":
        for kind, count in self.retries.items():
            if kind in _NEVER and count:
                raise RuleError(
                    f"retries.{kind}", count, "would fail the same way again; mend the input and pgray retry"
                )
            if count < 0:
                raise RuleError(f"retries.{kind}", count, "must be 0 or more")
        return self

    def allows_retry(self, kind: FailureKind | None, num_failures: int) -> bool:
        """Whether a trial that has failed in this way `num_failures` times is to be tried again."""
        return kind is not None and num_failures <= {**_RETRIES, **self.retries}.get(kind, 0)

"""When a sweep pauses because its jobs fail alike."""

from pgray.scheduler.circuit_breaker import CircuitBreaker
from trainer.errors import FailureKind
from trainer.records.ledger import LedgerEntry
from trainer.records.states import TrialState


def ended(
    kind: FailureKind | None, reason: str = "because", state: TrialState = TrialState.FAILED
) -> list[LedgerEntry]:
    return [
        LedgerEntry(
            at=0.0, sweep="x", arm="a", seed=1, trial_id="t", train_fingerprint="f", state=state, failure_kind=kind,
            reason=reason,
        )
    ]  # fmt: skip


FINISHED = ended(None, state=TrialState.FINISHED)


def test_the_same_failure_in_a_row_pauses() -> None:
    breaker = CircuitBreaker(3)
    assert [breaker.on_ended(ended("oom")) for _ in range(2)] == [None, None]
    assert breaker.on_ended(ended("oom")) == "3 jobs in a row failed with oom, the last one: because"


def test_a_success_or_another_failure_restarts_the_count() -> None:
    breaker = CircuitBreaker(2)
    jobs = [ended("oom"), FINISHED, ended("oom"), ended("infra"), ended("oom")]
    assert [breaker.on_ended(job) for job in jobs] == [None] * 5
    assert breaker.on_ended(ended("oom")) is not None


def test_what_concerns_one_arm_neither_counts_nor_restarts_the_count() -> None:
    breaker = CircuitBreaker(2)
    stopped = ended(None, state=TrialState.KILLED)
    jobs = [ended("diverged"), ended("diverged"), ended("oom"), ended("diverged"), stopped]
    assert [breaker.on_ended(job) for job in jobs] == [None] * 5
    assert breaker.on_ended(ended("oom")) is not None


def test_a_full_disk_pauses_at_once() -> None:
    reason = "OSError: [Errno 28] No space left on device"
    assert CircuitBreaker(100).on_ended(ended("infra", reason)) == f"a job could not write: {reason}"

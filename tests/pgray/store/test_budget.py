"""The budget tracker: limits, reservations, and what the ledger says has been spent."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import results
from pgray.spec.sections import Budget
from pgray.store.budget import BudgetTracker, spent_gpu_s
from pgray.store.ledger import Ledger
from tests.results.synthetic import Run
from trainer.presets.resolve import input_error
from trainer.records.ledger import LedgerEntry


def entry(trial: str, job: str | None, held_s: float | None, state: str = "failed", attempt: int = 1) -> LedgerEntry:
    return LedgerEntry(
        at=0.0, sweep="x", arm="a", seed=1, trial_id=trial, train_fingerprint="f", state=state,  # type: ignore[arg-type]
        attempt=attempt, job_id=job, gpu_held_s=held_s,
    )  # fmt: skip


def test_the_tighter_limit_counts() -> None:
    assert Budget().limit_gpu_s == math.inf
    assert Budget(gpu_hours=2).limit_gpu_s == 7200
    assert Budget(gpu_hours=2, usd=3, usd_per_gpu_hour=3).limit_gpu_s == 3600
    assert Budget(gpu_hours=2, usd=30, usd_per_gpu_hour=3).limit_gpu_s == 7200
    assert Budget(usd_per_gpu_hour=3).limit_gpu_s == math.inf


@pytest.mark.parametrize("price", [{}, {"usd_per_gpu_hour": 0}])
def test_dollars_need_a_price(price: dict[str, float]) -> None:
    with pytest.raises(ValidationError) as error:
        Budget.model_validate({"usd": 480, **price})
    line = str(input_error(error.value, "s.yaml", "budget"))
    assert line == "s.yaml: budget.usd: 480.0: needs a price; add usd_per_gpu_hour, above 0"


def test_a_tracker_reserves_and_books_and_describes_itself() -> None:
    tracker = BudgetTracker(Budget(gpu_hours=1, usd_per_gpu_hour=2), spent_gpu_s=360)
    assert tracker.text == "0.10 of 1.00 GPU-hours spent ($0.20 of $2.00), 0.90 left"
    tracker.reserve("a", 1800)
    assert tracker.left_gpu_s == 1440
    assert tracker.can_reserve(1440)
    assert not tracker.can_reserve(1500)
    assert "0.50 reserved, 0.40 left" in tracker.text
    tracker.book("a", 900)
    assert tracker.left_gpu_s == 2340
    for job, gpu_s in (("b", 2400), ("c", 1)):
        if job == "c":
            tracker.reserve("c", 1)
        with pytest.raises(ValueError, match="cannot reserve"):
            tracker.reserve(job, gpu_s)


def test_without_limits_everything_is_allowed_and_counted() -> None:
    tracker = BudgetTracker(None, 0)
    tracker.reserve("a", 1e12)
    tracker.book("a", 3600)
    assert tracker.left_gpu_s == math.inf
    assert tracker.text == "1.00 GPU-hours spent, no limit"


def test_a_job_without_gpus_may_run_when_the_budget_is_spent() -> None:
    tracker = BudgetTracker(Budget(gpu_hours=1), spent_gpu_s=9999)
    assert tracker.left_gpu_s < 0
    assert tracker.can_reserve(0)
    assert not tracker.can_reserve(1)
    tracker.reserve("cpu", 0)
    assert "0.00 left" in tracker.text


@given(
    limit=st.floats(0.1, 10),
    costs=st.lists(st.tuples(st.floats(1, 10_000), st.floats(0, 1)), max_size=20),
)
def test_jobs_that_keep_to_their_reservation_never_break_the_limit(
    limit: float, costs: list[tuple[float, float]]
) -> None:
    """Several jobs are out at a time; each holds at most what was reserved for it."""
    tracker, spent = BudgetTracker(Budget(gpu_hours=limit), 0), 0.0
    out: list[tuple[str, float]] = []
    for number, (asked, share) in enumerate(costs):
        if tracker.can_reserve(asked):
            tracker.reserve(f"job{number}", asked)
            out.append((f"job{number}", asked * share))
        if len(out) > 2:
            job, held = out.pop(0)
            tracker.book(job, held)
            spent += held
    for job, held in out:
        tracker.book(job, held)
        spent += held
    assert spent <= limit * 3600 + 1e-3
    assert tracker.left_gpu_s == pytest.approx(limit * 3600 - spent, abs=1e-3)


def test_every_attempt_is_counted_once() -> None:
    entries = [
        entry("t", "j-0", None, "running"),
        entry("t", "j-0", 100.0),
        entry("t", None, 100.0, "queued"),  # queued again by hand: repeats the old cost
        entry("t", "j-1", None, "running", attempt=2),
        entry("t", "j-1", 50.0, "finished", attempt=2),
        entry("t", "j-1", 50.0, "finished", attempt=2),  # the sweep asks for it again
        entry("u", "j-1", 50.0, "finished"),  # shares a job with t
        entry("v", None, 7.0, "finished"),  # without a known job
        entry("w", "j-2", None, "lost"),  # not measured
    ]
    assert spent_gpu_s(entries) == 207.0
    assert spent_gpu_s([]) == 0.0


def test_a_restart_gives_the_number_that_the_tracker_had_and_the_table_shows(tmp_path: Path) -> None:
    run = Run(tmp_path)
    tracker = BudgetTracker(Budget(gpu_hours=10), 0)
    for attempt, (trials, held_s) in enumerate([(["a", "b"], 100.0), (["a"], 40.0), (["b"], 3.5)]):
        tracker.reserve(f"f-{attempt}", 500)
        for trial in trials:
            run.entry(trial, 1, "failed", attempt=attempt, job_id=f"f-{attempt}", gpu_held_s=held_s / len(trials))
        tracker.book(f"f-{attempt}", held_s)
        spent = spent_gpu_s(Ledger(run.layout.ledger).entries())
        assert BudgetTracker(Budget(gpu_hours=10), spent).left_gpu_s == tracker.left_gpu_s
    assert results.load(tmp_path)["gpu_held_s"].sum() == pytest.approx(143.5)
    assert spent == 143.5

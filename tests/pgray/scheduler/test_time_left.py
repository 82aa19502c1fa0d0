"""The time that a sweep still takes: known only from what was measured, with its basis."""

from itertools import pairwise

import pytest

from pgray.execution.job_events import JobProgress
from pgray.scheduler.time_left import Estimate, JobToCome, TimeLeft

TRAINS_2, EXPORTS_1 = JobToCome(trains=True, num_trials=2), JobToCome(trains=False, num_trials=1)


def progress(train_frac: float, num_exported: int = 0, num_exports: int = 2) -> JobProgress:
    return JobProgress(0, 0, 0.0, None, train_frac, num_exported, num_exports)


def run_job(times: TimeLeft, job: str, start: float, *, trains: bool = True) -> None:
    """A job of two trials: 10 s to start, 100 s of training, 20 s for each export."""
    times.on_started(job, 2, start)
    if trains:
        for share in (0.0, 0.5):
            times.on_progress(job, progress(share), start + 10 + 100 * share)
    trained_at = start + (110 if trains else 10)
    times.on_progress(job, progress(1.0), trained_at)
    times.on_progress(job, progress(1.0, 1), trained_at + 20)
    times.on_ended(job, has_finished=True, now=trained_at + 40)


def test_nothing_is_known_before_it_was_measured() -> None:
    times = TimeLeft()
    assert times.of_all([TRAINS_2], 0.0) is None
    times.on_started("a", 2, 0.0)
    assert times.of_job("a", 5.0) is None
    times.on_progress("a", progress(0.3), 10.0)  # one report shows no speed: it may have resumed there
    assert times.of_job("a", 10.0) is None
    times.on_progress("a", progress(0.5), 30.0)
    assert times.of_job("a", 30.0) == Estimate(pytest.approx(50.0), "without exports")  # type: ignore[arg-type]
    assert times.of_all([], 30.0) is None, "the time of an export is unknown"
    times.on_progress("a", progress(1.0), 80.0)
    assert times.of_job("a", 80.0) is None
    times.on_progress("a", progress(1.0, 1), 95.0)
    assert times.of_job("a", 100.0) == Estimate(pytest.approx(10.0), "with exports")  # type: ignore[arg-type]


def test_a_job_that_did_not_finish_is_not_measured() -> None:
    times = TimeLeft()
    times.on_started("a", 1, 0.0)
    times.on_progress("a", progress(1.0), 10.0)
    times.on_ended("a", has_finished=False, now=20.0)
    assert (times.num_measured, times.of_all([TRAINS_2], 20.0)) == (0, None)


def test_jobs_to_come_take_what_the_ended_ones_took() -> None:
    times = TimeLeft()
    run_job(times, "a", 0.0)
    assert times.of_all([TRAINS_2, TRAINS_2], 150.0) == Estimate(pytest.approx(300.0), "judged by 1 job")  # type: ignore[arg-type]
    assert times.of_all([TRAINS_2, EXPORTS_1], 150.0) is None, "no job that only exports was measured"
    run_job(times, "b", 150.0, trains=False)
    assert times.of_all([TRAINS_2, EXPORTS_1], 200.0) == Estimate(pytest.approx(180.0), "judged by 2 jobs")  # type: ignore[arg-type]


def test_running_jobs_count_with_what_is_left_of_them_and_run_side_by_side() -> None:
    times = TimeLeft()
    run_job(times, "a", 0.0)
    times.on_started("b", 2, 150.0)
    times.on_started("c", 1, 150.0)
    first = times.of_all([], 170.0)
    assert first == Estimate(pytest.approx(130.0), "judged by 1 job")  # type: ignore[arg-type]
    assert times.of_all([TRAINS_2], 170.0) == Estimate(pytest.approx((130 + 110 + 150) / 2), "judged by 1 job")  # type: ignore[arg-type]
    times.on_progress("b", progress(0.0), 160.0)
    times.on_progress("b", progress(0.1), 180.0)  # half as fast as the first
    left = [times.of_job("b", now) for now in (180.0, 200.0, 5000.0)]
    seconds = [estimate.seconds for estimate in left if estimate]
    assert seconds == [pytest.approx(220.0), pytest.approx(200.0), pytest.approx(40.0)], "never below zero"
    assert all(before > after for before, after in pairwise(seconds))


def test_jobs_that_are_too_short_to_be_seen_count_as_a_whole() -> None:
    times = TimeLeft()
    times.on_started("a", 3, 0.0)
    times.on_ended("a", has_finished=True, now=2.0)
    assert times.of_all([TRAINS_2] * 4, 2.0) == Estimate(pytest.approx(8.0), "judged by 1 job")  # type: ignore[arg-type]

"""Warnings about the expected steps, bytes and costs of a plan. Each names its arms."""

from collections.abc import Iterator, Mapping, Sequence

from pgray.planning.config_warnings import merge_arms
from pgray.planning.job_cost import JobEstimate
from pgray.planning.size.fit import SizePrediction
from pgray.planning.step_time import StepTime
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.optim.schedule import STEPS_BEFORE_ESTIMATE, TrainProgress
from trainer.section import Start

HALF = 0.5  # share of the run: averaging weights from before it has cost 0.05 bpb (PR 488)
MAX_EARLY_SHARE = 0.01  # of an EMA's weight, from before half of the run
NEAR_CAP = 0.98
FIRST_STEPS = 0.03  # share of the run: a gate that opens before this was probably meant to open later


def forecast_warnings(step_times: Mapping[str, StepTime], sizes: Mapping[str, SizePrediction]) -> list[str]:
    """Return warnings about schedules, averages and sizes. Both arguments are by arm."""
    found = {name: [*_schedule_warnings(run), *_average_warnings(run)] for name, run in step_times.items()}
    for name, size in sizes.items():
        found[name] += _size_warnings(size)
    return merge_arms(found)


def budget_warnings(jobs: Sequence[JobEstimate], left_gpu_hours: float | None) -> list[str]:
    """Warn if the budget is not expected to last, or does not allow even the first job."""
    if left_gpu_hours is None or not jobs:
        return []
    expected = sum(job.expected_gpu_hours for job in jobs)
    first = jobs[0].gpu_hours_at_most
    left = f"budget: {left_gpu_hours:.2f} GPU-hours are left"
    if first > left_gpu_hours:
        return [f"{left}, the first job may take {first:.2f}: nothing will be started"]
    return [f"{left}, {expected:.2f} are expected: not every trial will run"] if expected > left_gpu_hours else []


def _schedule_warnings(run: StepTime) -> Iterator[str]:
    config, steps = run.config, run.steps
    warmdown = config.optim.warmdown
    length = f"the expected {steps} steps" if run.step_ms else f"train.iterations {steps}"
    if warmdown.kind == "iterations" and warmdown.value > steps:
        estimated = [now for now in run.schedule() if now.step >= STEPS_BEFORE_ESTIMATE]
        starts = f": the LR starts at {estimated[0].lr_scale:.0%} of its peak" if estimated else ""
        yield f"optim.warmdown.value {warmdown.value:g} is longer than {length}{starts}"
    gates: list[tuple[str, Start]] = [("qat", config.qat.start)] if config.qat.enabled else []
    if config.recurrence.kind == "partial":
        gates.append(("the second pass of recurrence", config.recurrence.start))
    for what, start in gates:
        opens = run.opens_at(start)
        if start.kind == "step" and opens is None:
            yield f"{what} never starts: it is set to step {start.value:g} of {steps}"
        elif opens is None:
            yield f"{what} never starts: {start.kind} {start.value:g} is not reached"
        elif start.kind == "lr_scale" and opens.progress < FIRST_STEPS:
            yield f"{what} is on almost from the first step: the LR multiplier starts below {start.value:g}"


def _average_warnings(run: StepTime) -> Iterator[str]:
    average = run.config.average
    schedule = run.schedule()
    lowest = min(now.lr_scale for now in schedule)
    if average.kind in ("ema", "sqwa"):
        share = _early_share(run)
        if share > MAX_EARLY_SHARE:
            yield f"{share:.0%} of the EMA's weight comes from the first half of training"
    if average.kind == "lawa":
        if average.count:
            starts = 1 - average.count * (average.every or 1) / run.steps
        else:
            starts = next((now.progress for now in schedule if now.lr_scale < 1), 1.0)
            if lowest >= 1:
                yield "the average never starts: it averages the warm-down's steps, and there is no warm-down"
        if starts < HALF:
            yield f"averaging starts in the first half of training, at {max(starts, 0.0):.0%}"
    first_swa = (average.lr_below or 0.4) if average.every else average.count / (average.count + 1)
    below = {"sqwa": average.lr_below or 0.2, "swa": first_swa}.get(average.kind)
    if below is not None and lowest >= below:
        yield f"the average never starts: it waits for an LR multiplier below {below:g}, the lowest is {lowest:.2f}"


def _early_share(run: StepTime) -> float:
    """Return the weight of the first half of training in the final EMA."""
    config = run.config
    average = config.average
    starts: TrainProgress | None = run.schedule()[0]
    if config.qat.enabled and (config.qat.reset_ema or average.start == "qat"):
        starts = run.opens_at(config.qat.start) or starts
    elif average.start == "warmdown":
        starts = next((now for now in run.schedule() if now.lr_scale < 1), None)
    if starts is None or starts.progress >= HALF:
        return 0.0
    if average.half_life_frac is not None:
        return float(0.5 ** (HALF / average.half_life_frac))
    return float(average.decay ** (run.steps / 2))


def _size_warnings(size: SizePrediction) -> Iterator[str]:
    cap = ARTIFACT_CAP_BYTES
    if size.low_bytes > cap:
        yield f"the artifact will be over the cap of {cap:,} bytes"
    elif size.num_bytes > cap:
        yield f"the artifact is expected to be over the cap of {cap:,} bytes"
    elif size.num_bytes > NEAR_CAP * cap or size.high_bytes > cap:
        yield f"the artifact may be over the cap of {cap:,} bytes"

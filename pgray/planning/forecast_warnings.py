"""What is probably not meant once steps, bytes and costs are expected: warnings of a forecast. Each names its arms."""

from collections.abc import Iterator, Mapping, Sequence

from pgray.planning.config_warnings import by_arm
from pgray.planning.job_cost import BudgetLeft, JobCost
from pgray.planning.size.fit import SizePrediction
from pgray.planning.step_time import StepTime
from trainer.config import Config
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.optim.schedule import STEPS_BEFORE_ESTIMATE, TrainProgress
from trainer.section import Start

HALF = 0.5
"""Of a run: averages of weights from before it have cost 0.05 bpb (PR 488), since these are still far from the end's."""

MOST_EARLY_SHARE = 0.01  # of an EMA, from before half of the run
NEAR_CAP = 0.98
AT_ONCE = 0.03  # of the run: a gate that opens before this has not waited


def expected_doubts(paces: Mapping[str, StepTime], sizes: Mapping[str, SizePrediction]) -> list[str]:
    """What shows once steps and bytes are expected; arguments by arm."""
    found = {name: [*_schedule_doubts(pace), *_average_doubts(pace)] for name, pace in paces.items()}
    for name, size in sizes.items():
        found[name] += _size_doubts(size)
    return by_arm(found)


def budget_doubts(jobs: Sequence[JobCost], budget: BudgetLeft) -> list[str]:
    """Where the budget will not last, or will not let a job begin."""
    left = budget.left_gpu_hours
    if left is None or not jobs:
        return []
    expected = sum(job.expected_gpu_hours for job in jobs)
    first = jobs[0].gpu_hours_at_most
    if first > left:
        return [f"budget: {left:.2f} GPU-hours are left, the first job may take {first:.2f}: nothing will be started"]
    if expected > left:
        return [f"budget: {left:.2f} GPU-hours are left, {expected:.2f} are expected: not every trial will run"]
    return []


def _schedule_doubts(pace: StepTime) -> Iterator[str]:
    config, steps = pace.config, pace.steps
    warmdown = config.optim.warmdown
    length = f"the expected {steps} steps" if pace.step_ms else f"train.iterations {steps}"
    if warmdown.kind == "iterations" and warmdown.value > steps:
        settled = [now for now in pace.moments() if now.step >= STEPS_BEFORE_ESTIMATE]
        begins = f": LR begins at {settled[0].lr_scale:.2f} of its value" if settled else ""
        yield f"optim.warmdown.value {warmdown.value:g} is longer than {length}{begins}"
    gates: list[tuple[str, Start]] = [("qat", config.qat.start)] if config.qat.enabled else []
    if config.recurrence.kind == "partial":
        gates.append(("the second pass of recurrence", config.recurrence.start))
    for what, start in gates:
        opens = pace.opens_at(start)
        if start.kind == "step" and opens is None:
            yield f"{what} starts at step {start.value:g} of {steps}: never"
        elif opens is None:
            yield f"{what} never starts: {start.kind} {start.value:g} is not reached"
        elif start.kind == "lr_scale" and opens.progress < AT_ONCE:
            yield f"{what} is on almost from the first step: the LR multiplier begins below {start.value:g}"


def _average_doubts(pace: StepTime) -> Iterator[str]:
    average = pace.config.average
    moments = pace.moments()
    lowest = min(now.lr_scale for now in moments)
    if average.kind in ("ema", "sqwa"):
        share = _early_share(pace)
        if share > MOST_EARLY_SHARE:
            yield f"averaging starts before half of the run: {share:.0%} of the EMA is weights from before it"
    if average.kind == "lawa":
        if average.count:
            window = average.count * (average.every or 1)
            begins = 1 - window / pace.steps
        else:
            begins = next((now.progress for now in moments if now.lr_scale < 1), 1.0)
            if lowest >= 1:
                yield "the average never begins: it takes the warm-down's steps, and there is no warm-down"
        if begins < HALF:
            yield f"averaging starts before half of the run, at {max(begins, 0.0):.0%}"
    below = {"sqwa": average.lr_below or 0.2, "swa": _swa_threshold(pace.config)}.get(average.kind)
    if below is not None and lowest >= below:
        yield f"the average never begins: it waits for an LR multiplier below {below:g}, the lowest is {lowest:.2f}"


def _swa_threshold(config: Config) -> float:
    """The LR multiplier of the first snapshot."""
    average = config.average
    return (average.lr_below or 0.4) if average.every else average.count / (average.count + 1)


def _early_share(pace: StepTime) -> float:
    """Weight that an EMA gives, at the end of the run, to weights from before half of it."""
    config = pace.config
    average = config.average
    begins: TrainProgress | None = pace.moments()[0]
    if config.qat.enabled and (config.qat.reset_ema or average.start == "qat"):
        begins = pace.opens_at(config.qat.start) or begins
    elif average.start == "warmdown":
        begins = next((now for now in pace.moments() if now.lr_scale < 1), None)
    if begins is None or begins.progress >= HALF:
        return 0.0
    if average.half_life_frac is not None:
        return float(0.5 ** (HALF / average.half_life_frac))
    return float(average.decay ** (pace.steps / 2))


def _size_doubts(size: SizePrediction) -> Iterator[str]:
    cap = ARTIFACT_CAP_BYTES
    if size.low_bytes > cap:
        yield f"the artifact will be over the cap of {cap:,} bytes"
    elif size.num_bytes > cap:
        yield f"the artifact is expected to be over the cap of {cap:,} bytes"
    elif size.num_bytes > NEAR_CAP * cap or size.high_bytes > cap:
        yield f"the artifact may be over the cap of {cap:,} bytes"

"""Predict how many steps an arm trains: min(train.iterations, train.wallclock_s / step time).

The step time is that of finished trials with the same model, batch and number of ranks. Without one it is unknown, and the
prediction is train.iterations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pgray.planning.past_trials import FinishedTrial, model_part
from trainer.config import Config
from trainer.optim.schedule import TrainProgress, is_open, train_progress
from trainer.run.config import Machine
from trainer.section import Start

_POINTS = 400  # steps at which a schedule is sampled


@dataclass(frozen=True)
class StepTime:
    """Expected steps of a config. `step_ms`: None = unknown."""

    config: Config
    steps: int
    step_ms: float | None = None

    @property
    def train_s(self) -> float:
        """Expected training time; train.wallclock_s if the step time is unknown."""
        limit = self.config.train.wallclock_s
        return limit if self.step_ms is None else min(limit, self.steps * self.step_ms / 1000)

    def schedule(self) -> list[TrainProgress]:
        """Return the progress at evenly spaced steps, from the first to the last."""
        points = min(_POINTS, self.steps)
        steps = sorted({round(i * (self.steps - 1) / max(points - 1, 1)) for i in range(points)})
        return [train_progress(self.config, step, step * (self.step_ms or 0.0) / 1000) for step in steps]

    def opens_at(self, start: Start) -> TrainProgress | None:
        """Return the first point of `schedule` at which a gate is open; None = it never opens."""
        return next((now for now in self.schedule() if is_open(start, now)), None)

    @property
    def mean_lr_scale(self) -> float:
        schedule = self.schedule()
        return sum(now.lr_scale for now in schedule) / len(schedule)


def expected_step_time(config: Config, machine: Machine, finished: Sequence[FinishedTrial]) -> StepTime:
    """Take the median step time of comparable trials; those with the same techniques on come first."""
    same = [f for f in finished if f.is_on(machine) and _work_per_step(f.config) == _work_per_step(config)]
    same = [f for f in same if f.result.hardware == same[-1].result.hardware]  # the folder may have changed machines
    with_same_techniques = [f for f in same if _techniques_on(f.config) == _techniques_on(config)]
    if not same:
        return StepTime(config, config.train.iterations)
    step_ms = median(f.result.step_ms for f in with_same_techniques or same)
    steps = max(1, min(config.train.iterations, int(1000 * config.train.wallclock_s / step_ms)))
    return StepTime(config, steps, step_ms)


def _work_per_step(config: Config) -> dict[str, Any]:
    """Return the settings that decide how long a step takes, except for weight techniques."""
    train = config.train.model_dump(include={"seq_len", "batch_tokens", "micro_batch_tokens", "compile"})
    return {**model_part(config), **train, "ns_steps": config.optim.ns_steps}


def _techniques_on(config: Config) -> dict[str, Any]:
    return {name: section for name, section in config.weight_techniques.items() if section.is_on}

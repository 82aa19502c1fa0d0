"""How far an arm is expected to train: steps = min(train.iterations, training clock / step time).

The step time is that of finished trials of the same model and batch on as many ranks; without one it is unknown, and the
steps are the most that the config allows.
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

_POINTS = 400  # at which a schedule is looked at


@dataclass(frozen=True)
class StepTime:
    """`step_ms`: None = unknown, then `steps` are train.iterations. `num_trials`: how many finished trials say so."""

    config: Config
    steps: int
    step_ms: float | None = None
    num_trials: int = 0

    @property
    def train_s(self) -> float:
        """Expected time on the training clock; the clock's limit where the step time is unknown."""
        limit = self.config.train.wallclock_s
        return limit if self.step_ms is None else min(limit, self.steps * self.step_ms / 1000)

    def moments(self) -> list[TrainProgress]:
        """The run's schedule at evenly spaced steps, the first and the last among them."""
        points = min(_POINTS, self.steps)
        steps = sorted({round(i * (self.steps - 1) / max(points - 1, 1)) for i in range(points)})
        return [train_progress(self.config, step, step * (self.step_ms or 0.0) / 1000) for step in steps]

    def opens_at(self, start: Start) -> TrainProgress | None:
        """The first of `moments` at which a gate is open; None = it never opens."""
        return next((now for now in self.moments() if is_open(start, now)), None)

    @property
    def mean_lr_scale(self) -> float:
        moments = self.moments()
        return sum(now.lr_scale for now in moments) / len(moments)


def expected_step_time(config: Config, machine: Machine, finished: Sequence[FinishedTrial]) -> StepTime:
    """What finished trials say about an arm's pace; those with its very techniques go before others."""
    same = [f for f in finished if f.is_on(machine) and _work(f.config) == _work(config)]
    same = [f for f in same if f.result.hardware == same[-1].result.hardware]  # a folder may have moved to another one
    twins = [f for f in same if _techniques(f.config) == _techniques(config)]
    chosen = twins or same
    iterations = config.train.iterations
    if not chosen:
        return StepTime(config, iterations)
    step_ms = median(f.result.step_ms for f in chosen)
    steps = max(1, min(iterations, int(1000 * config.train.wallclock_s / step_ms)))
    return StepTime(config, steps, step_ms, len(chosen))


def _work(config: Config) -> dict[str, Any]:
    """What a step costs, techniques on the weights aside."""
    train = config.train.model_dump(include={"seq_len", "batch_tokens", "micro_batch_tokens", "compile"})
    return {**model_part(config), **train, "ns_steps": config.optim.ns_steps}


def _techniques(config: Config) -> dict[str, Any]:
    return {name: section for name, section in config.weight_techniques.items() if section.is_on}

"""Learning-rate multiplier, Muon momentum and gates: pure functions of where the run stands.

`progress` is the share of the run that is over, by whichever limit binds: steps or the training clock.
"""

from dataclasses import dataclass

from trainer.config import Config
from trainer.optim.config import OptimConfig
from trainer.run.config import TrainConfig
from trainer.section import Start

STEPS_BEFORE_ESTIMATE = 10
"""One slow first step must not make the run look short: a gate that it opened would stay open."""


@dataclass(frozen=True)
class TrainProgress:
    """Where a training run stands before a step. All ranks hold the same one: `elapsed_s` is rank 0's."""

    step: int  # optimizer steps done
    elapsed_s: float  # on the training clock
    progress: float  # 0..1
    lr_scale: float  # LR multiplier, 0..1


def train_progress(config: Config, step: int, elapsed_s: float) -> TrainProgress:
    train = config.train
    progress = min(1.0, max(step / train.iterations, elapsed_s / train.wallclock_s))
    return TrainProgress(step, elapsed_s, progress, lr_scale(config.optim, train, step, elapsed_s, progress))


def lr_scale(optim: OptimConfig, train: TrainConfig, step: int, elapsed_s: float, progress: float) -> float:
    """LR multiplier: 1, then linear to `warmdown.min_lr` at the end of the run.

    kind `iterations`: the last `value` steps; how many steps the clock still allows is estimated from the mean step
    time so far, as the challenge's scripts do. kind `wallclock_frac`: the last `value` share of the run.
    """
    warmdown = optim.warmdown
    if warmdown.value == 0:
        remaining = 1.0
    elif warmdown.kind == "wallclock_frac":
        remaining = (1 - progress) / warmdown.value
    else:
        remaining = (train.iterations - step) / warmdown.value
        if step >= STEPS_BEFORE_ESTIMATE and elapsed_s > 0:
            steps_left = (train.wallclock_s - elapsed_s) / (elapsed_s / step)
            remaining = min(remaining, steps_left / warmdown.value)
    return warmdown.min_lr + (1 - warmdown.min_lr) * min(1.0, max(0.0, remaining))


def muon_momentum(optim: OptimConfig, step: int) -> float:
    """Linear rise from `muon_momentum_start` to `muon_momentum` over `muon_momentum_steps`."""
    share = 1.0 if optim.muon_momentum_steps == 0 else min(step / optim.muon_momentum_steps, 1.0)
    return (1 - share) * optim.muon_momentum_start + share * optim.muon_momentum


def is_open(start: Start, now: TrainProgress) -> bool:
    """Whether a gate is open at `now`.

    `wallclock_frac` opens when elapsed >= value x cap (PRs 1002, 488); in a run that steps end before the clock does,
    at that share of the steps, so that a short run on a laptop goes through the same phases.
    """
    match start.kind:
        case "immediately":
            return True
        case "step":
            return now.step >= start.value
        case "lr_scale":
            return now.lr_scale < start.value
        case "wallclock_frac":
            return now.progress >= start.value

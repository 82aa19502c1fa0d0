"""Learning-rate multiplier, Muon momentum and gates, computed from the progress of a run.

`progress` is the share of the run that is over: of its steps or of its training clock, whichever share is larger.
"""

from dataclasses import dataclass

from trainer.config import Config
from trainer.optim.config import OptimConfig
from trainer.run.config import TrainConfig
from trainer.section import Start

STEPS_BEFORE_ESTIMATE = 10
"""Steps before the mean step time is used: a slow first step would make the run look short and open gates for good."""


@dataclass(frozen=True)
class TrainProgress:
    """The progress of a training run before a step. It is equal on all ranks: `elapsed_s` is rank 0's."""

    step: int  # optimizer steps done
    elapsed_s: float  # on the training clock
    progress: float  # 0..1
    lr_scale: float  # LR multiplier, 0..1


def train_progress(config: Config, step: int, elapsed_s: float) -> TrainProgress:
    train = config.train
    progress = min(1.0, max(step / train.iterations, elapsed_s / train.wallclock_s))
    return TrainProgress(step, elapsed_s, progress, lr_scale(config.optim, train, step, elapsed_s, progress))


def lr_scale(optim: OptimConfig, train: TrainConfig, step: int, elapsed_s: float, progress: float) -> float:
    """Return the LR multiplier: 1, then falling linearly to `warmdown.min_lr` at the end of the run.

    With kind `iterations` it falls over the last `value` steps; the mean step time so far tells how many steps the clock
    still allows, as in the challenge's scripts. With kind `wallclock_frac` it falls over the last `value` share of the run.
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
    """Return the momentum: it rises linearly from `muon_momentum_start` to `muon_momentum` in `muon_momentum_steps`."""
    share = 1.0 if optim.muon_momentum_steps == 0 else min(step / optim.muon_momentum_steps, 1.0)
    return (1 - share) * optim.muon_momentum_start + share * optim.muon_momentum


def is_open(start: Start, now: TrainProgress) -> bool:
    """Return whether a gate is open at `now`.

    `wallclock_frac` opens at that share of the training clock (PRs 1002, 488) or of the steps, whichever comes first, so
    that a short run on a laptop goes through the same phases.
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

"""LAWA: the mean of the latest weights. Sources: arXiv:2209.14981; over the warm-down, parameter-golf PR 51."""

from collections import deque

import torch
from torch import Tensor

from trainer.averaging.base import Average, NamedTensors, RunningMean, copy_tensors
from trainer.config import Config
from trainer.optim.schedule import TrainProgress
from trainer.records.results import AverageRecord


class LawaWarmdown(RunningMean):
    """The mean of the weights after every step of the warm-down."""

    def update(self, master: NamedTensors, now: TrainProgress, is_qat: bool) -> None:
        if now.lr_scale < 1:
            self.add(master)


class LawaLatest(Average):
    """The mean of the latest `count` snapshots, one every `every` steps."""

    def __init__(self, key: str, config: Config, initial: NamedTensors) -> None:
        super().__init__(key, config, initial)
        self._latest: deque[dict[str, Tensor]] = deque(maxlen=self._config.count)

    def update(self, master: NamedTensors, now: TrainProgress, is_qat: bool) -> None:
        if now.step % (self._config.every or 1) == 0:
            self._latest.append(copy_tensors(master))

    def weights(self, master: NamedTensors) -> dict[str, Tensor]:
        snapshots = list(self._latest) or [dict(master)]
        return {name: torch.stack([s[name] for s in snapshots]).mean(0) for name in master}

    def record(self) -> AverageRecord:
        return AverageRecord(key=self.key, snapshots=len(self._latest), never_began=not self._latest)

    def state(self) -> dict[str, Tensor]:
        return {f"{i}.{name}": w for i, snapshot in enumerate(self._latest) for name, w in snapshot.items()}

    def load_state(self, named: NamedTensors) -> None:
        indices = sorted({int(name.split(".", 1)[0]) for name in named})
        self._latest.extend(copy_tensors(named, f"{i}.") for i in indices)


def build(key: str, config: Config, initial: NamedTensors) -> Average:
    return (LawaLatest if config.average.count else LawaWarmdown)(key, config, initial)

"""SWA: the mean of snapshots late in the run. Sources: parameter-golf PR 488 (by LR multiplier) and PR 1002 (by steps)."""

from collections import deque

import torch
from torch import Tensor

from trainer.averaging.base import EARLIEST_SNAPSHOT, NamedTensors, RunningMean
from trainer.config import Config
from trainer.optim.schedule import TrainProgress
from trainer.records.results import AverageRecord

DEFAULT_LR_BELOW = 0.4


class Swa(RunningMean):
    """Mean of `count` snapshots at evenly spaced LR multipliers of the warm-down and of the last weights; or, with `every`,
    of one snapshot per `every` steps below LR multiplier `lr_below`.

    It takes no snapshot in the first half of the run and, with `qat.stop_swa`, none while QAT is on.
    """

    def __init__(self, key: str, config: Config, initial: NamedTensors) -> None:
        super().__init__(key, config, initial)
        self._stops_at_qat = config.qat.stop_swa
        count = 0 if self._config.every else self._config.count
        self._thresholds = deque((count - i) / (count + 1) for i in range(count))
        self._adds_last = bool(count)

    def update(self, master: NamedTensors, now: TrainProgress, is_qat: bool) -> None:
        if now.progress < EARLIEST_SNAPSHOT or (self._stops_at_qat and is_qat):
            return
        if self._config.every:
            below = self._config.lr_below or DEFAULT_LR_BELOW
            if now.lr_scale < below and now.step % self._config.every == 0:
                self.add(master)
        elif self._thresholds and now.lr_scale <= self._thresholds[0]:
            self.add(master)
            while self._thresholds and now.lr_scale <= self._thresholds[0]:
                self._thresholds.popleft()

    def weights(self, master: NamedTensors) -> dict[str, Tensor]:
        if not self._adds_last or not self._mean:
            return super().weights(master)
        share = 1 / (self._count + 1)
        return {name: w.lerp(master[name], share) for name, w in self._mean.items()}

    def record(self) -> AverageRecord:
        return AverageRecord(key=self.key, snapshots=self._count + self._adds_last, never_began=not self._count)

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"thresholds_left": torch.tensor([len(self._thresholds)])}

    def load_state(self, named: NamedTensors) -> None:
        super().load_state(named)
        while len(self._thresholds) > int(named["thresholds_left"].item()):
            self._thresholds.popleft()


build = Swa

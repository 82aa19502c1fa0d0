"""EMA: an exponential moving average of the weights. Source: parameter-golf PR 1002, with its reset at QAT."""

import torch
from torch import Tensor

from trainer.averaging.base import Average, NamedTensors, copy_tensors
from trainer.config import Config
from trainer.optim.schedule import TrainProgress
from trainer.records.results import AverageRecord


class Ema(Average):
    """shadow <- decay * shadow + (1 - decay) * weights.

    With `half_life_frac`, a step's decay is 0.5^(share of the run that the step took / half_life_frac): the half-life is
    then the same share of the run on a machine of any speed.
    """

    def __init__(self, key: str, config: Config, initial: NamedTensors) -> None:
        super().__init__(key, config, initial)
        self._resets_at_qat = config.qat.reset_ema or self._config.start == "qat"
        self._was_qat = False
        self._last_progress = 0.0
        self._shadow: dict[str, Tensor] = {}
        self._updates = 0
        self._initial_share = 0.0
        if self._config.start == "immediately":
            self._shadow = copy_tensors(initial)
            self._initial_share = 1.0

    def update(self, master: NamedTensors, now: TrainProgress, is_qat: bool) -> None:
        is_switch_on = is_qat and not self._was_qat
        share = max(now.progress - self._last_progress, 0.0)
        self._was_qat, self._last_progress = is_qat, now.progress
        if is_switch_on and self._resets_at_qat:
            self._shadow = {}
        if not self._shadow:
            if self._may_begin(now, is_qat):
                self._shadow = copy_tensors(master)
                self._updates, self._initial_share = 0, 0.0
            return
        half_life = self._config.half_life_frac
        decay = self._config.decay if half_life is None else 0.5 ** (share / half_life)
        torch._foreach_lerp_(list(self._shadow.values()), [master[n] for n in self._shadow], 1 - decay)
        self._updates += 1
        self._initial_share *= decay

    def _may_begin(self, now: TrainProgress, is_qat: bool) -> bool:
        return {"immediately": True, "warmdown": now.lr_scale < 1, "qat": is_qat}[self._config.start]

    def weights(self, master: NamedTensors) -> dict[str, Tensor]:
        return copy_tensors(self._shadow or master)

    def record(self) -> AverageRecord:
        return AverageRecord(
            key=self.key, updates=self._updates, initial_share=self._initial_share, never_began=not self._shadow
        )

    def state(self) -> dict[str, Tensor]:
        numbers = [float(self._was_qat), self._last_progress, float(self._updates), self._initial_share]
        shadow = {f"shadow.{n}": w for n, w in self._shadow.items()}
        return {"numbers": torch.tensor(numbers, dtype=torch.float64), **shadow}

    def load_state(self, named: NamedTensors) -> None:
        was_qat, self._last_progress, updates, self._initial_share = named["numbers"].tolist()
        self._was_qat, self._updates = bool(was_qat), int(updates)
        self._shadow = copy_tensors(named, "shadow.")


build = Ema

"""SQWA: the mean of quantized snapshots of an EMA. Sources: arXiv:2002.00343; parameter-golf PR 975."""

from torch import Tensor

from trainer.averaging.base import EARLIEST_SNAPSHOT, NamedTensors, RunningMean, copy_tensors
from trainer.averaging.ema import Ema
from trainer.config import Config
from trainer.optim.schedule import TrainProgress
from trainer.quant.fake_quant import fake_quantize
from trainer.quant.tensor_plan import plan_tensors, shapes_of

DEFAULT_LR_BELOW = 0.2


class Sqwa(RunningMean):
    """Every `every` steps below LR multiplier `lr_below`, add the EMA, quantized as export does, to a mean."""

    def __init__(self, key: str, config: Config, initial: NamedTensors) -> None:
        super().__init__(key, config, initial)
        self._ema = Ema("", config, initial)
        self._plans = plan_tensors(shapes_of(initial), config.quant)

    def update(self, master: NamedTensors, now: TrainProgress, is_qat: bool) -> None:
        self._ema.update(master, now, is_qat)
        every = self._config.every or 1
        below = self._config.lr_below or DEFAULT_LR_BELOW
        if now.progress >= EARLIEST_SNAPSHOT and now.lr_scale < below and now.step % every == 0:
            self.add({n: fake_quantize(w, self._plans[n]) for n, w in self._ema.weights(master).items()})

    def weights(self, master: NamedTensors) -> dict[str, Tensor]:
        return super().weights(self._ema.weights(master))

    def state(self) -> dict[str, Tensor]:
        return super().state() | {f"ema.{n}": w for n, w in self._ema.state().items()}

    def load_state(self, named: NamedTensors) -> None:
        super().load_state(named)
        self._ema.load_state(copy_tensors(named, "ema."))


build = Sqwa

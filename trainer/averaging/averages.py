"""Averages of the weights over training: EMA, SWA, LAWA, SQWA. All on the device, several at once.

An average watches the master weights after each step and never changes them, so one training run serves every arm that
differs only in its average. fp32 throughout: a bf16 shadow cannot hold the 0.3 % update of an EMA.

Sources: EMA and its reset at QAT, PR 1002; SWA over LR multipliers, PR 488, and every n steps, PR 1002; LAWA, PR 51
(arXiv:2209.14981); SQWA (mean of quantized snapshots), PR 975 (arXiv:2002.00343).
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.averaging.config import AverageConfig
from trainer.config import Config
from trainer.optim.schedule import TrainProgress
from trainer.quant.fake_quant import fake_quantize
from trainer.quant.tensor_plan import plan_tensors, shapes_of
from trainer.records.fingerprint import average_key
from trainer.records.results import AverageRecord

Named = Mapping[str, Tensor]

SWA_DEFAULT_LR_BELOW = 0.4
SQWA_DEFAULT_LR_BELOW = 0.2
EARLIEST_SNAPSHOT = 0.5
"""No snapshot before this share of the run: near-initial weights in the mean cost PR 488's baseline about 0.05 bpb."""


def _copies(named: Named, prefix: str = "") -> dict[str, Tensor]:
    """Copies of the tensors whose names begin with `prefix`, under the rest of their names."""
    return {name.removeprefix(prefix): w.clone() for name, w in named.items() if name.startswith(prefix)}


class Average(ABC):
    """Watches a training run; `weights` is its result."""

    def __init__(self, key: str) -> None:
        self.key = key

    @abstractmethod
    def observe(self, master: Named, now: TrainProgress, is_qat: bool) -> None:
        """Take in the weights after a step. `now` is the moment after it; `is_qat` whether that step ran under QAT."""

    @abstractmethod
    def weights(self, master: Named) -> dict[str, Tensor]:
        """The average. An average that never began is the last weights."""

    @abstractmethod
    def record(self) -> AverageRecord: ...

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        return {}

    def load_state(self, named: Named) -> None:
        del named


class Last(Average):
    """No averaging."""

    def observe(self, master: Named, now: TrainProgress, is_qat: bool) -> None: ...

    def weights(self, master: Named) -> dict[str, Tensor]:
        return _copies(master)

    def record(self) -> AverageRecord:
        return AverageRecord(key=self.key, snapshots=1)


class Ema(Average):
    """shadow <- decay * shadow + (1 - decay) * weights.

    With `half_life_frac` the decay of a step is 0.5^(share of the run it took / half_life_frac): the same memory in
    terms of the run, however many steps the machine makes.
    """

    def __init__(self, key: str, config: AverageConfig, resets_at_qat: bool, initial: Named) -> None:
        super().__init__(key)
        self._config = config
        self._resets_at_qat = resets_at_qat
        self._was_qat = False
        self._last_progress = 0.0
        self._shadow: dict[str, Tensor] = {}
        self._updates = 0
        self._initial_share = 0.0
        if config.start == "immediately":
            self._shadow = _copies(initial)
            self._initial_share = 1.0

    def observe(self, master: Named, now: TrainProgress, is_qat: bool) -> None:
        switched_on = is_qat and not self._was_qat
        share = max(now.progress - self._last_progress, 0.0)
        self._was_qat, self._last_progress = is_qat, now.progress
        if switched_on and (self._resets_at_qat or self._config.start == "qat"):
            self._shadow = {}
        if not self._shadow:
            if self._may_begin(now, is_qat):
                self._shadow = _copies(master)
                self._updates, self._initial_share = 0, 0.0
            return
        half_life = self._config.half_life_frac
        decay = self._config.decay if half_life is None else 0.5 ** (share / half_life)
        torch._foreach_lerp_(list(self._shadow.values()), [master[n] for n in self._shadow], 1 - decay)
        self._updates += 1
        self._initial_share *= decay

    def _may_begin(self, now: TrainProgress, is_qat: bool) -> bool:
        match self._config.start:
            case "immediately":
                return True
            case "warmdown":
                return now.lr_scale < 1
            case "qat":
                return is_qat

    def weights(self, master: Named) -> dict[str, Tensor]:
        return _copies(self._shadow or master)

    def record(self) -> AverageRecord:
        return AverageRecord(
            key=self.key, updates=self._updates, initial_share=self._initial_share, never_began=not self._shadow
        )

    def state(self) -> dict[str, Tensor]:
        numbers = [float(self._was_qat), self._last_progress, float(self._updates), self._initial_share]
        return {"numbers": torch.tensor(numbers, dtype=torch.float64)} | {
            f"shadow.{n}": w for n, w in self._shadow.items()
        }

    def load_state(self, named: Named) -> None:
        was_qat, self._last_progress, updates, self._initial_share = named["numbers"].tolist()
        self._was_qat, self._updates = bool(was_qat), int(updates)
        self._shadow = _copies(named, "shadow.")


class RunningMean(Average):
    """Mean of snapshots, kept as a running mean. Subclasses say when to take one and of what."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self._mean: dict[str, Tensor] = {}
        self._count = 0

    def add(self, snapshot: Named) -> None:
        self._count += 1
        if not self._mean:
            self._mean = _copies(snapshot)
            return
        torch._foreach_lerp_(list(self._mean.values()), [snapshot[n] for n in self._mean], 1 / self._count)

    def weights(self, master: Named) -> dict[str, Tensor]:
        return _copies(self._mean or master)

    def record(self) -> AverageRecord:
        return AverageRecord(key=self.key, snapshots=self._count, never_began=not self._count)

    def state(self) -> dict[str, Tensor]:
        return {"count": torch.tensor([self._count])} | {f"mean.{n}": w for n, w in self._mean.items()}

    def load_state(self, named: Named) -> None:
        self._count = int(named["count"].item())
        self._mean = _copies(named, "mean.")


class Swa(RunningMean):
    """`count` snapshots at evenly spaced LR multipliers of the warm-down plus the last weights; or every `every` steps
    below LR multiplier `lr_below`. Never before half of the run; with `stop_swa`, none once QAT is on."""

    def __init__(self, key: str, config: AverageConfig, stops_at_qat: bool) -> None:
        super().__init__(key)
        self._config, self._stops_at_qat = config, stops_at_qat
        count = config.count if not config.every else 0
        self._thresholds = deque((count - i) / (count + 1) for i in range(count))
        self._adds_last = bool(count)

    def observe(self, master: Named, now: TrainProgress, is_qat: bool) -> None:
        if now.progress < EARLIEST_SNAPSHOT or (self._stops_at_qat and is_qat):
            return
        if self._config.every:
            below = self._config.lr_below or SWA_DEFAULT_LR_BELOW
            if now.lr_scale < below and now.step % self._config.every == 0:
                self.add(master)
            return
        if self._thresholds and now.lr_scale <= self._thresholds[0]:
            self.add(master)
            while self._thresholds and now.lr_scale <= self._thresholds[0]:
                self._thresholds.popleft()

    def weights(self, master: Named) -> dict[str, Tensor]:
        if not self._adds_last or not self._mean:
            return super().weights(master)
        share = 1 / (self._count + 1)
        return {name: w.lerp(master[name], share) for name, w in self._mean.items()}

    def record(self) -> AverageRecord:
        last = int(self._adds_last)
        return AverageRecord(key=self.key, snapshots=self._count + last, never_began=not self._count)

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"thresholds_left": torch.tensor([len(self._thresholds)])}

    def load_state(self, named: Named) -> None:
        super().load_state(named)
        while len(self._thresholds) > int(named["thresholds_left"].item()):
            self._thresholds.popleft()


class LawaWarmdown(RunningMean):
    """LAWA as in PR 51: the mean of the weights after every warm-down step."""

    def observe(self, master: Named, now: TrainProgress, is_qat: bool) -> None:
        if now.lr_scale < 1:
            self.add(master)


class LawaLatest(Average):
    """LAWA: the mean of the latest `count` snapshots, one every `every` steps."""

    def __init__(self, key: str, every: int, count: int) -> None:
        super().__init__(key)
        self._every = every
        self._latest: deque[dict[str, Tensor]] = deque(maxlen=count)

    def observe(self, master: Named, now: TrainProgress, is_qat: bool) -> None:
        if now.step % self._every == 0:
            self._latest.append(_copies(master))

    def weights(self, master: Named) -> dict[str, Tensor]:
        snapshots = list(self._latest) or [dict(master)]
        return {name: torch.stack([s[name] for s in snapshots]).mean(0) for name in master}

    def record(self) -> AverageRecord:
        return AverageRecord(key=self.key, snapshots=len(self._latest), never_began=not self._latest)

    def state(self) -> dict[str, Tensor]:
        return {f"{i}.{name}": w for i, snapshot in enumerate(self._latest) for name, w in snapshot.items()}

    def load_state(self, named: Named) -> None:
        snapshots: dict[int, dict[str, Tensor]] = {}
        for full, w in named.items():
            index, name = full.split(".", 1)
            snapshots.setdefault(int(index), {})[name] = w.clone()
        self._latest.extend(snapshots[i] for i in sorted(snapshots))


class Sqwa(RunningMean):
    """Every `every` steps below LR multiplier `lr_below`, the EMA as export would quantize it goes into a mean."""

    def __init__(self, key: str, config: Config, ema: Ema, initial: Named) -> None:
        super().__init__(key)
        self._config, self._ema = config.average, ema
        self._plans = plan_tensors(shapes_of(initial), config.quant)

    def observe(self, master: Named, now: TrainProgress, is_qat: bool) -> None:
        self._ema.observe(master, now, is_qat)
        every = self._config.every or 1
        below = self._config.lr_below or SQWA_DEFAULT_LR_BELOW
        if now.progress >= EARLIEST_SNAPSHOT and now.lr_scale < below and now.step % every == 0:
            self.add({n: fake_quantize(w, self._plans[n]) for n, w in self._ema.weights(master).items()})

    def weights(self, master: Named) -> dict[str, Tensor]:
        return super().weights(self._ema.weights(master))

    def state(self) -> dict[str, Tensor]:
        return super().state() | {f"ema.{n}": w for n, w in self._ema.state().items()}

    def load_state(self, named: Named) -> None:
        super().load_state(named)
        self._ema.load_state(_copies(named, "ema."))


def build_average(config: Config, initial: Named) -> Average:
    """The average that `config` exports. `initial`: the weights before the first step."""
    average, key = config.average, average_key(config)
    resets = config.qat.enabled and config.qat.reset_ema
    match average.kind:
        case "none":
            return Last(key)
        case "ema":
            return Ema(key, average, resets, initial)
        case "swa":
            return Swa(key, average, config.qat.enabled and config.qat.stop_swa)
        case "lawa":
            return LawaLatest(key, average.every or 1, average.count) if average.count else LawaWarmdown(key)
        case "sqwa":
            return Sqwa(key, config, Ema("", average, resets, initial), initial)

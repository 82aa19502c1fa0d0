"""Averages of the weights over training: the interface and what several of them share.

An average reads the master weights after each step and never changes them, so one training run serves every arm that
differs only in its average. Averages stay on the device, in fp32: bf16 cannot hold the 0.3 % update of an EMA.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.config import Config
from trainer.optim.schedule import TrainProgress
from trainer.records.fingerprint import average_key
from trainer.records.results import AverageRecord

NamedTensors = Mapping[str, Tensor]

EARLIEST_SNAPSHOT = 0.5
"""SWA and SQWA take no snapshot before this share of the run: near-initial weights cost PR 488's baseline 0.05 bpb."""


def copy_tensors(named: NamedTensors, prefix: str = "") -> dict[str, Tensor]:
    """Copy the tensors whose names begin with `prefix`; their new names lack it."""
    return {name.removeprefix(prefix): w.clone() for name, w in named.items() if name.startswith(prefix)}


class Average(ABC):
    """One average of the weights, updated by a training run.

    Args:
        key: its name in the run folder.
        config: the config of a trial that exports it.
        initial: the weights before the first step.
    """

    def __init__(self, key: str, config: Config, initial: NamedTensors) -> None:
        self.key = key
        self._config = config.average

    @abstractmethod
    def update(self, master: NamedTensors, now: TrainProgress, is_qat: bool) -> None:
        """Take the weights after a step. `now`: the progress after the step; `is_qat`: whether QAT was on in it."""

    @abstractmethod
    def weights(self, master: NamedTensors) -> dict[str, Tensor]:
        """Return the average, or copies of the last weights `master` if it never began."""

    @abstractmethod
    def record(self) -> AverageRecord: ...

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint must hold."""
        return {}

    def load_state(self, named: NamedTensors) -> None:
        del named


class RunningMean(Average):
    """A mean of snapshots, updated in place. Subclasses decide when to `add` a snapshot."""

    def __init__(self, key: str, config: Config, initial: NamedTensors) -> None:
        super().__init__(key, config, initial)
        self._mean: dict[str, Tensor] = {}
        self._count = 0

    def add(self, snapshot: NamedTensors) -> None:
        self._count += 1
        if not self._mean:
            self._mean = copy_tensors(snapshot)
            return
        torch._foreach_lerp_(list(self._mean.values()), [snapshot[n] for n in self._mean], 1 / self._count)

    def weights(self, master: NamedTensors) -> dict[str, Tensor]:
        return copy_tensors(self._mean or master)

    def record(self) -> AverageRecord:
        return AverageRecord(key=self.key, snapshots=self._count, never_began=not self._count)

    def state(self) -> dict[str, Tensor]:
        return {"count": torch.tensor([self._count])} | {f"mean.{n}": w for n, w in self._mean.items()}

    def load_state(self, named: NamedTensors) -> None:
        self._count = int(named["count"].item())
        self._mean = copy_tensors(named, "mean.")


def build_average(config: Config, initial: NamedTensors) -> Average:
    """Return the average that `config` exports, built by `build` of the module `trainer/averaging/<kind>.py`."""
    module = importlib.import_module(f"trainer.averaging.{config.average.kind}")
    average: Average = module.build(average_key(config), config, initial)
    return average

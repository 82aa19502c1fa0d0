"""The interface of a technique that changes the compute weights."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from trainer.config import Config
from trainer.optim.schedule import TrainProgress
from trainer.quant.tensor_plan import TensorPlan


class Technique(ABC):
    """compute = apply(master, gate). The gradient passes straight through; the gate is computed outside the compiled graph."""

    section: ClassVar[str]
    """Name of its section in `Config`, a `WeightTechnique`."""

    order: ClassVar[int] = 50
    """Techniques are applied in this order. QAT, at 100, is last, so that the model computes with what export would write."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def gate(self, now: TrainProgress, is_qat: bool) -> float:
        """Return how far it is on before the step at `now`; 0 = off. `is_qat`: whether QAT is on."""

    def touches(self, plan: TensorPlan) -> bool:
        """Return whether it changes this parameter; by default every parameter that is exported as integers."""
        return plan.scheme is not None

    @abstractmethod
    def apply(self, w: Tensor, plan: TensorPlan, gate: float, generator: torch.Generator) -> Tensor:
        """Return the compute weights of one parameter.

        Args:
            w: the parameter, float32, of plan.shape. Do not change it in place.
            gate: from `gate`, above 0.
            generator: this rank's random generator, on the device of `w`.
        """

"""What a technique on the compute weights is."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from trainer.config import Config
from trainer.optim.schedule import TrainProgress
from trainer.quant.tensor_plan import TensorPlan


class Technique(ABC):
    """compute = apply(master, gate). The gradient passes straight through; the gate is computed outside the graph."""

    section: ClassVar[str]
    """Its section in `Config`, a `WeightTechnique`."""

    order: ClassVar[int] = 50
    """Techniques act in this order; QAT at 100 is last, so that what the model sees is what export would write."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def gate(self, now: TrainProgress, is_qat: bool) -> float:
        """How far it is switched on before the step at `now`: 0 = off. `is_qat`: whether QAT is on."""

    def touches(self, plan: TensorPlan) -> bool:
        """Whether it acts on this parameter; by default on everything that is exported as integers."""
        return plan.scheme is not None

    @abstractmethod
    def apply(self, w: Tensor, plan: TensorPlan, gate: float, generator: torch.Generator) -> Tensor:
        """The compute weights of one parameter.

        Args:
            w: the parameter, float32, of plan.shape; not to be changed in place.
            gate: from `gate`, above 0.
            generator: this rank's own noise source, on the device of `w`.
        """

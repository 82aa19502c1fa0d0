"""Quantization-aware training: the compute weights are what export would write."""

import torch
from torch import Tensor

from trainer.optim.schedule import TrainProgress
from trainer.quant.fake_quant import fake_quantize
from trainer.quant.tensor_plan import TensorPlan
from trainer.techniques.base import Technique


class Qat(Technique):
    section = "qat"
    order = 100

    def gate(self, now: TrainProgress, is_qat: bool) -> float:
        """Return 1.0 once QAT is on. The training loop decides when: averages, noise and the QAT check depend on it too."""
        return float(is_qat)

    def touches(self, plan: TensorPlan) -> bool:
        return plan.scheme is not None and plan.tensor_class in self.config.qat.scope

    def apply(self, w: Tensor, plan: TensorPlan, gate: float, generator: torch.Generator) -> Tensor:
        return fake_quantize(w, plan)

"""Quant-Noise: fake-quantize a random share of the weights at each step. Off once QAT is on.

The other weights get an exact gradient, so it disturbs training less than QAT from the first step does.
Source: Fan et al. 2020, "Training with Quantization Noise for Extreme Model Compression", arXiv:2004.07320.
"""

import torch
from torch import Tensor

from trainer.optim.schedule import TrainProgress
from trainer.quant.fake_quant import fake_quantize
from trainer.quant.tensor_plan import TensorPlan
from trainer.techniques.base import Technique


class QuantNoise(Technique):
    section = "quant_noise"

    def gate(self, now: TrainProgress, is_qat: bool) -> float:
        return 0.0 if is_qat else self.config.quant_noise.share

    def apply(self, w: Tensor, plan: TensorPlan, gate: float, generator: torch.Generator) -> Tensor:
        is_rounded = torch.rand(w.shape, generator=generator, device=w.device) < gate
        return torch.where(is_rounded, fake_quantize(w, plan), w)

"""Quantization noise annealing (QNA): train with noise like that of rounding. Source: parameter-golf PR 975.

compute = master + U(-1, 1) * half_step * g, half_step = group max / (2 q_max), g = magnitude * LR multiplier; g is 0 once
QAT is on, and evaluation has no noise. Each rank draws its own noise (in PR 975 all ranks had the same) by the seed.
"""

from functools import cache

import torch
from torch import Tensor

from trainer.optim.schedule import TrainProgress
from trainer.quant.quantizer import half_step
from trainer.quant.tensor_plan import TensorPlan
from trainer.techniques.base import Technique


class Qna(Technique):
    section = "qna"

    def gate(self, now: TrainProgress, is_qat: bool) -> float:
        return 0.0 if is_qat else self.config.qna.magnitude * now.lr_scale

    def apply(self, w: Tensor, plan: TensorPlan, gate: float, generator: torch.Generator) -> Tensor:
        return add_quantization_noise(w, plan, gate, generator)


@cache
def _layer_mask(int_layers: tuple[bool, ...], device: torch.device) -> Tensor:
    """Return 1 for each layer that becomes integers, (L, 1, 1) float32. Cached: a copy to the device at each step waits."""
    return torch.tensor(int_layers, device=device, dtype=torch.float32).view(-1, 1, 1)


def add_quantization_noise(w: Tensor, plan: TensorPlan, gate: float, generator: torch.Generator) -> Tensor:
    """Add uniform noise of +-gate half-steps to the layers that export turns into integers."""
    if plan.scheme is None or gate == 0:
        return w
    stack = plan.as_stack(w)
    uniform = torch.empty_like(stack).uniform_(-1, 1, generator=generator)
    step = half_step(stack, plan.scheme) * gate
    if not all(plan.int_layers):
        step = step * _layer_mask(plan.int_layers, w.device)
    return (stack + uniform * step).reshape(w.shape)

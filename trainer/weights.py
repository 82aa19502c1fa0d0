"""Master weights and compute weights.

The optimizer owns fp32 *master* weights. Once per step `write` puts the *compute* weights into the model:
compute = transform(master, gates), with quantization noise, fake quantization, or neither. Gradients of the compute
weights are the gradients of the master weights (straight through).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.dist import Ranks
from trainer.quant.fake import fake_quantize
from trainer.quant.noise import add_quantization_noise, noise_generator
from trainer.quant.select import TensorPlan, plan_tensors, shapes_of


@dataclass(frozen=True)
class Gates:
    """What the compute weights go through. `qna` 0 = no noise."""

    qna: float = 0.0
    qat: bool = False


class Weights:
    """The master copy of a model's parameters, and the transform that fills the model with compute weights."""

    def __init__(self, model: nn.Module, config: Config, ranks: Ranks) -> None:
        self.compute: dict[str, nn.Parameter] = dict(model.named_parameters())
        self.master: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.compute.items()}
        self.plans: dict[str, TensorPlan] = plan_tensors(shapes_of(self.master), config.quant)
        self.noise = noise_generator(config.seed, ranks.rank, ranks.device)
        self._qat_classes = set(config.qat.scope)

    def is_fake_quantized(self, name: str) -> bool:
        """Whether QAT, once on, acts on this parameter."""
        plan = self.plans[name]
        return plan.scheme is not None and plan.tensor_class in self._qat_classes

    @torch.no_grad()
    def write(self, gates: Gates) -> None:
        """Put compute weights into the model's parameters, in place."""
        plain: list[str] = []
        for name, w in self.master.items():
            if gates.qat and self.is_fake_quantized(name):
                self.compute[name].copy_(fake_quantize(w, self.plans[name]))
            elif gates.qna and self.plans[name].scheme is not None:
                self.compute[name].copy_(add_quantization_noise(w, self.plans[name], gates.qna, self.noise))
            else:
                plain.append(name)
        if plain:
            torch._foreach_copy_([self.compute[n] for n in plain], [self.master[n] for n in plain])

    @torch.no_grad()
    def load(self, named: dict[str, Tensor]) -> None:
        """Replace the master weights, in place."""
        for name, w in self.master.items():
            w.copy_(named[name])

    def snapshot(self) -> dict[str, Tensor]:
        return {name: w.clone() for name, w in self.master.items()}

"""Master weights and compute weights.

The optimizer updates fp32 *master* weights. Once per step `write` puts the *compute* weights into the model: the master
weights, changed by the techniques whose gates are open. The gradients of the compute weights are applied to the master
weights (straight through).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.optim.schedule import TrainProgress
from trainer.quant.tensor_plan import TensorPlan, plan_tensors, shapes_of
from trainer.run.dist import DistContext
from trainer.techniques.base import Technique
from trainer.techniques.registry import active_techniques

Gates = Mapping[str, float]
"""Technique's section -> how far it is on. Missing or 0 = off. With `NO_GATES` the compute weights are the master weights."""

NO_GATES: Gates = {}
QAT_ONLY: Gates = {"qat": 1.0}

_RANK_STRIDE = 1_000_003


def noise_generator(seed: int, rank: int, device: torch.device) -> torch.Generator:
    """Return the random generator of one rank. Ranks draw independently; equal seed and rank give equal noise."""
    return torch.Generator(device=device).manual_seed(seed * _RANK_STRIDE + rank)


class Weights:
    """The master weights of a model, and the techniques that make its compute weights from them."""

    def __init__(self, model: nn.Module, config: Config, dist: DistContext) -> None:
        self.compute: dict[str, nn.Parameter] = dict(model.named_parameters())
        self.master: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.compute.items()}
        self.plans: dict[str, TensorPlan] = plan_tensors(shapes_of(self.master), config.quant)
        self.noise = noise_generator(config.seed, dist.rank, dist.device)
        self.techniques: list[Technique] = active_techniques(config)

    def gates(self, now: TrainProgress, is_qat: bool) -> Gates:
        """Return every technique's gate before the step at `now`."""
        return {technique.section: technique.gate(now, is_qat) for technique in self.techniques}

    def is_fake_quantized(self, name: str) -> bool:
        """Return whether QAT, when it is on, fake-quantizes this parameter."""
        return any(t.section == "qat" and t.touches(self.plans[name]) for t in self.techniques)

    @torch.no_grad()
    def write(self, gates: Gates) -> None:
        """Write the compute weights into the model's parameters, in place."""
        is_on = [technique for technique in self.techniques if gates.get(technique.section)]
        plain: list[str] = []
        for name, master in self.master.items():
            plan, w = self.plans[name], master
            for technique in is_on:
                if technique.touches(plan):
                    w = technique.apply(w, plan, gates[technique.section], self.noise)
            if w is master:
                plain.append(name)
            else:
                self.compute[name].copy_(w)
        if plain:
            torch._foreach_copy_([self.compute[n] for n in plain], [self.master[n] for n in plain])

    @torch.no_grad()
    def load(self, named: Mapping[str, Tensor]) -> None:
        """Replace the master weights, in place."""
        for name, w in self.master.items():
            w.copy_(named[name])

    def snapshot(self) -> dict[str, Tensor]:
        return {name: w.clone() for name, w in self.master.items()}

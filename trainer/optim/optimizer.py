"""The optimizer of the master weights: Muon for banks, AdamW for embeddings and all other parameters.

Every parameter is in exactly one group; tests check this for every technique, because PR 1032's gates were in none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import Config
from trainer.optim.muon import MuonBank
from trainer.optim.schedule import TrainProgress, muon_momentum
from trainer.quant.tensor_classes import CLASS_OF
from trainer.run.dist import DistContext

ADAM_BETAS = (0.9, 0.95)
ADAM_EPS = 1e-8
EMBEDDING_TABLES = ("embed", "bigram_table", "value_embed_table")


@dataclass(frozen=True)
class ParameterGroups:
    """Names of parameters. `muon`: 3-D banks of layers; `embed`: token tables; `scalar`: all others."""

    muon: tuple[str, ...]
    embed: tuple[str, ...]
    scalar: tuple[str, ...]

    @property
    def adam(self) -> tuple[str, ...]:
        return (*self.embed, *self.scalar)


def group_parameters(named: Mapping[str, Tensor]) -> ParameterGroups:
    muon = tuple(n for n, p in named.items() if p.dim() == 3 and CLASS_OF.get(n) in ("attn", "mlp"))
    embed = tuple(n for n in named if n in EMBEDDING_TABLES)
    scalar = tuple(n for n in named if n not in muon and n not in embed)
    return ParameterGroups(muon, embed, scalar)


class Optimizer:
    """Clips gradients, takes their mean over ranks and updates the master weights in place."""

    def __init__(self, master: dict[str, Tensor], config: Config, dist: DistContext) -> None:
        self._optim, self._dist, self._clip = config.optim, dist, config.train.grad_clip
        self._master = master
        self.groups = group_parameters(master)
        self.banks = {name: MuonBank(self._shard(master[name]), self._optim) for name in self.groups.muon}
        base_lrs = (self.groups.embed, self._optim.embed_lr), (self.groups.scalar, self._optim.scalar_lr)
        self.adam = torch.optim.AdamW(
            [{"params": [master[n] for n in names], "base_lr": base_lr} for names, base_lr in base_lrs if names],
            lr=0.0,
            betas=ADAM_BETAS,
            eps=ADAM_EPS,
            weight_decay=self._optim.adam_weight_decay,
            fused=dist.device.type == "cuda",
        )

    @torch.no_grad()
    def step(self, compute: Mapping[str, Tensor], now: TrainProgress) -> None:
        """Apply the gradients of the compute weights, which are summed over micro-batches but not yet over ranks.

        Each rank clips its own gradient before the mean over ranks is taken, as in PRs 975 and 1032. The mean of clipped
        gradients can be shorter than the limit and has another direction than the clipped mean.
        """
        banks = {n: _grad(compute[n]) for n in self.groups.muon}
        others = [_grad(compute[n]) for n in self.groups.adam]
        self._clip_(banks, others)
        shards = {n: self._dist.reduce_scatter_mean(self._padded(grad)) for n, grad in banks.items()}
        others = self._mean_of(others)
        momentum = muon_momentum(self._optim, now.step)
        for name, grad in shards.items():
            self._update_bank(name, grad, self._optim.matrix_lr * now.lr_scale, momentum)
        for name, grad in zip(self.groups.adam, others, strict=True):
            self._master[name].grad = grad
        for group in self.adam.param_groups:
            group["lr"] = group["base_lr"] * now.lr_scale
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def reset(self) -> None:
        """Delete all state, as before the first step."""
        for bank in self.banks.values():
            bank.momentum.zero_()
            if bank.variance is not None:
                bank.variance.zero_()
        self.adam.state.clear()

    def state(self) -> dict[str, Tensor]:
        """Return this rank's shard of the state."""
        named = {f"muon.momentum.{n}": bank.momentum for n, bank in self.banks.items()}
        named |= {f"muon.variance.{n}": b.variance for n, b in self.banks.items() if b.variance is not None}
        for name in self.groups.adam:
            for key, value in self.adam.state.get(self._master[name], {}).items():
                named[f"adam.{key}.{name}"] = value
        return named

    @torch.no_grad()
    def load_state(self, named: Mapping[str, Tensor]) -> None:
        for name, bank in self.banks.items():
            bank.momentum.copy_(named[f"muon.momentum.{name}"])
            if bank.variance is not None:
                bank.variance.copy_(named[f"muon.variance.{name}"])
        self.adam.state.clear()
        for full, value in named.items():
            if full.startswith("adam."):
                _, key, name = full.split(".")
                self.adam.state[self._master[name]][key] = value.clone()

    def _padded(self, w: Tensor) -> Tensor:
        """Return the bank with layers of zeros added, so that every rank gets equally many."""
        missing = -w.size(0) % self._dist.world_size
        return F.pad(w, (0, 0, 0, 0, 0, missing)) if missing else w

    def _shard(self, w: Tensor) -> Tensor:
        padded = self._padded(w)
        each = padded.size(0) // self._dist.world_size
        return padded[self._dist.rank * each : (self._dist.rank + 1) * each]

    def _update_bank(self, name: str, grad: Tensor, lr: float, momentum: float) -> None:
        w = self._master[name]
        if self._dist.world_size == 1:
            self.banks[name].update(w, grad, lr, momentum)
            return
        shard = self._shard(w).clone()
        self.banks[name].update(shard, grad, lr, momentum)
        w.copy_(self._dist.all_gather(shard)[: w.size(0)])

    def _mean_of(self, grads: list[Tensor]) -> list[Tensor]:
        """Return the means over ranks of many small tensors, by one collective."""
        if self._dist.world_size == 1:
            return grads
        sizes = [g.numel() for g in grads]
        flat = self._dist.mean_(torch.cat([g.reshape(-1) for g in grads]))
        return [part.view_as(g) for part, g in zip(torch.split(flat, sizes), grads, strict=True)]

    def _clip_(self, banks: Mapping[str, Tensor], others: list[Tensor]) -> None:
        """Scale this rank's gradients to a global norm of at most `grad_clip`. It does not wait for the device."""
        if not self._clip:
            return
        squares = torch.stack([s.square().sum() for s in banks.values()]).sum()
        total = squares + torch.stack([g.square().sum() for g in others]).sum()
        factor = (self._clip / (total.sqrt() + 1e-6)).clamp_max(1.0)
        torch._foreach_mul_([*banks.values(), *others], factor)


def _grad(compute: Tensor) -> Tensor:
    return compute.grad if compute.grad is not None else torch.zeros_like(compute)

"""Muon for banks: momentum, then orthogonalization by Newton-Schulz, batched over layers and sharded over ranks.

Each rank updates one n-th of a bank's layers: gradients are reduce-scattered, Newton-Schulz runs on the shard, and the
updated layers are all-gathered. Sources: Muon, Keller Jordan 2024 (github.com/KellerJordan/Muon); coefficients and the
sqrt(max(1, rows/cols)) scale as in the challenge baseline; Muon-VS, arXiv:2601.14603, and PR 1032's version of it.
"""

import torch
from torch import Tensor

from trainer.optim.config import OptimConfig

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPS = 1e-7
VARIANCE_EPS = 1e-8


def newton_schulz(g_LOI: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Move the singular values of each matrix (L, O, I) towards 1 by a quintic iteration in `dtype`.

    5 steps give singular values of about 0.7 to 1.2; 0 steps only normalize.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    x: Tensor = g_LOI.to(dtype)
    is_tall = x.size(-2) > x.size(-1)
    if is_tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + _EPS)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(-2, -1) if is_tall else x


class MuonBank:
    """The momentum of this rank's layers of one bank, and their update."""

    def __init__(self, shard_LOI: Tensor, optim: OptimConfig) -> None:
        self._optim = optim
        self.momentum = torch.zeros_like(shard_LOI)
        self.variance = torch.zeros_like(shard_LOI) if optim.muon_variant != "muon" else None
        self._dtype = torch.bfloat16 if shard_LOI.is_cuda else torch.float32

    @torch.no_grad()
    def update(self, w_LOI: Tensor, grad_LOI: Tensor, lr: float, momentum: float) -> None:
        """Update the shard in place, with Nesterov momentum and decoupled weight decay.

        Muon-VS: variance buffer <- mu variance + mu (1 - mu) (momentum_prev - g)^2, and the Nesterov update is divided
        by its root before it is orthogonalized. In `muon_vs`, as in the paper, the momentum is a mean of gradients; in
        `muon_vs_pr1032` it is their sum, as in plain Muon, so its distance to a gradient is up to 1 / (1 - mu) times as
        large.
        """
        if self.variance is not None:
            spread = (self.momentum - grad_LOI).square_().mul_(momentum * (1 - momentum))
            self.variance.mul_(momentum).add_(spread)
        if self._optim.muon_variant == "muon_vs":
            self.momentum.lerp_(grad_LOI, 1 - momentum)
            update = grad_LOI.lerp(self.momentum, momentum)
        else:
            self.momentum.mul_(momentum).add_(grad_LOI)
            update = grad_LOI.add(self.momentum, alpha=momentum)
        if self.variance is not None:
            update.div_(self.variance.sqrt().add_(VARIANCE_EPS))
        direction = newton_schulz(update, self._optim.ns_steps, self._dtype)
        scale = max(1.0, w_LOI.size(-2) / w_LOI.size(-1)) ** 0.5
        w_LOI.mul_(1 - lr * self._optim.weight_decay)
        w_LOI.add_(direction.to(w_LOI.dtype), alpha=-lr * scale)

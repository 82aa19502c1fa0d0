"""Score-first test-time training: the model learns from validation text that is already scored.

The targets are divided into chunks. Each chunk is scored by sliding windows; then the weights take `epochs` of SGD on it,
except after the last chunk. So each target is scored once, before any update on it (validity rule C3). It starts from the
unpacked artifact's weights and updates them in float, without fake quantization.

The first blocks' own parameters (gains, scales, gates) are frozen. As in PRs 975 and 1032 their matrices are not: there
too, these lie in banks.

Source: PRs 549, 975, 1002, 1032 (`ttt_sliding`): SGD, lr 0.002 with a cosine over chunks, momentum 0.9, clip 1.
"""

import math

import numpy as np
import torch
from torch.nn import Parameter

from trainer.evaluation.config import EvalConfig
from trainer.evaluation.scoring import Forward, Score, Validation, windows
from trainer.model.model import Model
from trainer.model.shapes import BLOCK_PARAMETERS
from trainer.run.dist import DistContext

MOMENTUM = 0.9
CLIP_NORM = 1.0
SEQUENCES_PER_UPDATE = 32


class TestTimeTraining:
    """Scores a model while training it. It changes the model's weights: load others before the next evaluation."""

    __test__ = False  # not a pytest class

    def __init__(
        self, model: Model, forward: Forward, validation: Validation, settings: EvalConfig, dist: DistContext
    ) -> None:
        self._forward, self._validation, self._settings, self._dist = forward, validation, settings, dist
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._velocity = [torch.zeros_like(p) for p in self._parameters]
        self._frozen_rows = frozen_rows(model, settings.ttt.freeze_blocks)

    def run(self) -> Score:
        """Score every target once. All ranks return the same score and end with the same weights."""
        settings, chunk = self._settings, self._settings.ttt.chunk_tokens
        num_targets = self._validation.num_targets(settings.seq_len)
        plan = windows(num_targets, settings.seq_len, settings.stride)
        owner = (plan.start + plan.first_scored) // chunk  # a window belongs to the chunk of its first scored target
        num_chunks = -(-num_targets // chunk)
        total = torch.zeros(3, dtype=torch.float64, device=self._dist.device)
        for index in range(num_chunks):
            low, high = (int(i) for i in np.searchsorted(owner, [index, index + 1]))
            mine = self._dist.share(low, high)
            total += self._validation.score_windows(self._forward, plan, mine, settings.batch_rows)
            if index + 1 < num_chunks:
                lr = settings.ttt.lr * 0.5 * (1 + math.cos(math.pi * index / (num_chunks - 1)))
                self._learn(index * chunk, min((index + 1) * chunk, num_targets), lr)
        return Score.from_sums(self._dist.sum(total))

    def _learn(self, first: int, end: int, lr: float) -> None:
        """Run `epochs` of SGD on the whole sequences of targets first..end-1, divided over ranks."""
        seq_len, world_size = self._settings.seq_len, self._dist.world_size
        starts = np.arange(first, end - seq_len + 1, seq_len, dtype=np.int64)
        per_update = max(SEQUENCES_PER_UPDATE // world_size, 1) * world_size
        for _ in range(self._settings.ttt.epochs if lr else 0):
            for i in range(0, len(starts), per_update):
                self._update(starts[i : i + per_update], lr)

    def _update(self, starts: np.ndarray[tuple[int], np.dtype[np.int64]], lr: float) -> None:
        mine = starts[self._dist.rank :: self._dist.world_size]
        for p in self._parameters:
            p.grad = None
        if len(mine):
            index = mine[:, None] + np.arange(self._settings.seq_len + 1)
            block = torch.from_numpy(self._validation.tokens[index].astype(np.int64)).to(self._dist.device)
            losses = self._forward(block[:, :-1].contiguous(), block[:, 1:].contiguous())
            (losses.mean() * (len(mine) / len(starts))).backward()  # type: ignore[no-untyped-call]
        self._step(lr)

    @torch.no_grad()
    def _step(self, lr: float) -> None:
        """Update by SGD with momentum; gradients are summed over ranks and clipped to a global norm of 1."""
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        for p, rows in self._frozen_rows:
            if p.grad is not None:
                p.grad[:rows] = 0  # so they count in no norm and get no velocity
        flat = self._dist.sum(torch.cat([g.reshape(-1) for g in gradients]))
        flat *= (CLIP_NORM / (flat.norm() + 1e-6)).clamp_max(1.0)
        parts = torch.split(flat, [g.numel() for g in gradients])
        for p, velocity, part in zip(self._parameters, self._velocity, parts, strict=True):
            velocity.mul_(MOMENTUM).add_(part.view_as(p))
            p.add_(velocity, alpha=-lr)
            p.grad = None


def frozen_rows(model: Model, blocks: int) -> list[tuple[Parameter, int]]:
    """Return the parameters of the first `blocks` blocks, except matrices, and how many rows of each belong to these."""
    named, layers = dict(model.named_parameters()), model.config.model.layers
    owned = [(named[name], blocks - (layers - named[name].size(0))) for name in BLOCK_PARAMETERS if name in named]
    return [(p, min(rows, p.size(0))) for p, rows in owned if rows > 0]

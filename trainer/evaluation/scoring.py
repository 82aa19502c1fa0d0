"""Computes bits per byte of the validation split by sliding windows. Plain evaluation is stride = seq_len.

Every target is scored exactly once, with at least seq_len - stride tokens of context if the split has them before it. The
number of targets is cut to a multiple of seq_len, as in the challenge, so that every stride scores the same targets.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.data.bytes_per_token import token_bytes
from trainer.data.shards import check_vocabulary, find_tokenizer, list_shards, map_tokens
from trainer.errors import DataError
from trainer.evaluation.config import EvalConfig
from trainer.run.dist import DistContext

Forward = Callable[[Tensor, Tensor], Tensor]
"""(B, T) tokens, (B, T) targets -> (B, T) nats."""

RECOMPILE_LIMIT = 64


@dataclass(frozen=True)
class Score:
    """Sums over scored targets. Add scores of disjoint targets."""

    nats: float
    tokens: int
    bytes: int

    @classmethod
    def from_sums(cls, sums_3: Tensor) -> "Score":
        """Make a score of (3,) float64: nats, tokens and bytes, summed over ranks."""
        nats, tokens, num_bytes = sums_3.tolist()
        return cls(nats, int(tokens), int(num_bytes))

    @property
    def loss_nats(self) -> float:
        return self.nats / self.tokens

    @property
    def bpb(self) -> float:
        return self.nats / math.log(2) / self.bytes


@dataclass(frozen=True)
class Windows:
    """Window i reads tokens start[i] .. start[i] + seq_len and scores its targets first_scored[i] .. seq_len - 1."""

    seq_len: int
    start: np.ndarray[tuple[int], np.dtype[np.int64]]
    first_scored: np.ndarray[tuple[int], np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.start)


def windows(num_targets: int, seq_len: int, stride: int) -> Windows:
    """Return windows that together score each of `num_targets` targets exactly once.

    Each window ends `stride` after the one before it. The last ends at the last target and scores only the rest.
    """
    if not 1 <= stride <= seq_len:
        raise ValueError(f"stride must be 1..{seq_len}, got {stride}")
    if num_targets < seq_len:
        raise ValueError(f"{num_targets} targets are fewer than seq_len {seq_len}")
    ends = np.append(np.arange(seq_len, num_targets, stride, dtype=np.int64), num_targets)
    start = ends - seq_len
    scored_until = np.concatenate(([0], ends[:-1]))
    return Windows(seq_len, start, scored_until - start)


class Validation:
    """The validation split of a data folder and the byte counts of its tokens.

    Args:
        vocab_size: a larger token raises DataError, which names its place; None = the tokenizer's number of pieces.
    """

    def __init__(self, folder: Path, tokenizer: str, dist: DistContext, vocab_size: int | None = None) -> None:
        self._dist = dist
        table = token_bytes(find_tokenizer(folder, tokenizer))
        shards = {path: np.asarray(map_tokens(path)) for path in list_shards(folder, "val")}
        for path, tokens in shards.items():
            check_vocabulary(tokens, len(table.base_bytes) if vocab_size is None else vocab_size, path, 0)
        self.tokens = np.concatenate(list(shards.values()))
        arrays = table.base_bytes.astype(np.int64), table.has_leading_space, table.is_boundary
        self._base, self._has_space, self._is_boundary = (torch.tensor(array, device=dist.device) for array in arrays)
        self._folder = folder

    def num_targets(self, seq_len: int) -> int:
        """Return the number of targets without a tail shorter than a sequence. Raises DataError if none is left."""
        count = (len(self.tokens) - 1) // seq_len * seq_len
        if count == 0:
            fix = f"is shorter than eval.seq_len {seq_len} + 1; use more validation shards or a shorter eval.seq_len"
            raise DataError(self._folder, f"validation split of {len(self.tokens)} tokens", fix)
        return count

    @torch.no_grad()
    def score(self, forward: Forward, settings: EvalConfig, stride: int) -> Score:
        """Score all targets, divided over ranks. Every rank returns the same score."""
        plan = windows(self.num_targets(settings.seq_len), settings.seq_len, stride)
        mine = self._dist.share(0, len(plan))
        return Score.from_sums(self._dist.sum(self.score_windows(forward, plan, mine, settings.batch_rows)))

    @torch.no_grad()
    def score_windows(self, forward: Forward, plan: Windows, chosen: range, rows: int) -> Tensor:
        """Return nats, tokens and bytes of the chosen windows, (3,) float64. Batches all have `rows` rows: one graph."""
        device = self._dist.device
        total = torch.zeros(3, dtype=torch.float64, device=device)
        column = torch.arange(plan.seq_len, device=device)
        for first in range(chosen.start, chosen.stop, rows):
            ids = np.arange(first, min(first + rows, chosen.stop))
            filled = np.concatenate((ids, np.full(rows - len(ids), ids[-1])))
            first_scored = np.where(np.arange(rows) < len(ids), plan.first_scored[filled], plan.seq_len)
            index = plan.start[filled, None] + np.arange(plan.seq_len + 1)
            block = torch.from_numpy(self.tokens[index].astype(np.int64)).to(device)
            inputs, targets = block[:, :-1], block[:, 1:]
            losses = forward(inputs.contiguous(), targets.contiguous())
            is_scored = column >= torch.from_numpy(first_scored).to(device)[:, None]
            num_bytes = self._base[targets] + (self._has_space[targets] & ~self._is_boundary[inputs]).long()
            total[0] += losses.double().masked_fill(~is_scored, 0).sum()
            total[1] += is_scored.sum()
            total[2] += num_bytes.masked_fill(~is_scored, 0).sum()
        return total


def make_forward(model: nn.Module, config: Config, device: torch.device) -> "CompiledModel":
    """Return the model as training and evaluation call it: bf16 autocast and torch.compile on CUDA, fp32 eager on CPU.

    `train.compile` overrides the default. No gate switches anything inside, so nothing is folded away or recompiled.
    """
    is_cuda = device.type == "cuda"
    use_compile = config.train.compile if config.train.compile is not None else is_cuda
    if use_compile:
        # One code object serves training, validation, the QAT check, every evaluation shape and both recurrence schedules.
        torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    call = torch.compile(model, dynamic=False, fullgraph=True) if use_compile else model
    return CompiledModel(call, device.type, is_cuda, is_compiled=use_compile)


@dataclass
class CompiledModel:
    """Call it with (tokens, targets). `is_looped`, the gate of partial recurrence, is an argument of the compiled function,
    so each of its values has its own graph."""

    model: Callable[[Tensor, Tensor, bool], Tensor]
    device_type: str
    is_bf16: bool
    is_looped: bool = True
    is_compiled: bool = False

    def __call__(self, tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.is_bf16):
            return self.model(tokens, targets, self.is_looped)

"""Reads each rank's tokens of each training step, one step ahead in a thread.

Step s uses the s-th block of `batch_tokens` tokens of the shards in order; rank r of n takes the r-th of n equal parts of
it. So any number of ranks uses the same tokens, each once, and resuming needs no state. After the last whole block the
stream starts again.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.data.shards import check_vocabulary, list_shards, map_tokens
from trainer.errors import DataError
from trainer.run.config import TrainConfig
from trainer.run.dist import DistContext


@dataclass(frozen=True)
class Batch:
    """One rank's share of a step: `tokens_MBT[i]` and `targets_MBT[i]` are the i-th micro-batch, int64 on the device."""

    tokens_MBT: Tensor
    targets_MBT: Tensor


class TokenStream:
    """Args: `vocab_size`: a batch with a larger token raises DataError; the model would fail without naming the place."""

    def __init__(self, folder: Path, train: TrainConfig, dist: DistContext, vocab_size: int) -> None:
        self._train, self._vocab_size, self._dist = train, vocab_size, dist
        self._paths = list_shards(folder, "train")
        self._shards = [map_tokens(path) for path in self._paths]
        self._starts = np.concatenate(([0], np.cumsum([len(shard) for shard in self._shards])))
        self.num_blocks = int((self._starts[-1] - 1) // train.batch_tokens)
        if self.num_blocks < 1:
            fix = f"train.batch_tokens {train.batch_tokens} needs at least one token more; use more shards or less"
            raise DataError(folder, f"{self._starts[-1]} training tokens", fix)
        self.rows, self.micro_batches = train.split_batch(dist.world_size)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="token-reader")
        self._ahead: tuple[int, Future[npt.NDArray[np.int64]]] | None = None

    def batch(self, step: int) -> Batch:
        """Return this rank's tokens of a step, and start reading those of the next step."""
        is_ahead = self._ahead is not None and self._ahead[0] == step
        flat = self._ahead[1].result() if is_ahead and self._ahead else self._read(step)
        self._ahead = (step + 1, self._reader.submit(self._read, step + 1))
        pinned = torch.from_numpy(flat)
        if self._dist.device.type == "cuda":
            pinned = pinned.pin_memory()
        block = pinned.to(self._dist.device, non_blocking=True)
        shape = (self.micro_batches, self.rows // self.micro_batches, self._train.seq_len)
        return Batch(block[:-1].view(shape), block[1:].view(shape))

    def close(self) -> None:
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _read(self, step: int) -> npt.NDArray[np.int64]:
        per_rank = self.rows * self._train.seq_len
        start = (step % self.num_blocks) * self._train.batch_tokens + self._dist.rank * per_rank
        end, parts = start + per_rank + 1, []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < end:
            offset = start - int(self._starts[shard])
            part = self._shards[shard][offset : offset + end - start]
            check_vocabulary(part, self._vocab_size, self._paths[shard], offset)
            parts.append(part.astype(np.int64))
            start += len(part)
            shard += 1
        return np.concatenate(parts)

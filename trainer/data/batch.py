"""Divides a step's tokens among ranks in whole rows, and a rank's rows into equal micro-batches. Torch-free."""

from trainer.errors import InputError
from trainer.run.config import TrainConfig


def split_batch(train: TrainConfig, world_size: int, origin: str = "config") -> tuple[int, int]:
    """Return the rows per rank and step, and the number of equal micro-batches that they are split into.

    Raises:
        InputError: batch_tokens cannot be divided among the ranks in whole rows; names `origin`.
    """
    if train.batch_tokens % (world_size * train.seq_len):
        fix = f"must be a multiple of ranks x train.seq_len = {world_size} x {train.seq_len}"
        raise InputError(origin, "train.batch_tokens", train.batch_tokens, fix)
    rows = train.batch_tokens // (world_size * train.seq_len)
    fewest = -(-rows * train.seq_len // train.micro_batch_tokens)
    micro_batches = next((n for n in range(max(fewest, 1), rows + 1) if rows % n == 0), rows)
    return rows, micro_batches

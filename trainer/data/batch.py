"""How a step's tokens are divided: among the ranks in whole rows, and a rank's rows into equal micro-batches. Torch-free."""

from trainer.errors import InputError
from trainer.run.config import TrainConfig


def split_batch(train: TrainConfig, world_size: int, place: str = "config") -> tuple[int, int]:
    """(rows per rank and step, micro-batches they are split into).

    Micro-batches are equal, so that the mean of their means is the mean.

    Raises:
        InputError: batch_tokens cannot be divided among the ranks in whole rows; names `place`.
    """
    if train.batch_tokens % (world_size * train.seq_len):
        fix = f"must be a multiple of ranks x train.seq_len = {world_size} x {train.seq_len}"
        raise InputError(place, "train.batch_tokens", train.batch_tokens, fix)
    rows = train.batch_tokens // (world_size * train.seq_len)
    fewest = -(-rows * train.seq_len // train.micro_batch_tokens)
    micro_batches = next((n for n in range(max(fewest, 1), rows + 1) if rows % n == 0), rows)
    return rows, micro_batches

"""Token-pair and value embeddings: small tables beside the tied embedding. Sources: PRs 315, 488 (BigramHash), 549."""

import torch.nn.functional as F
from torch import Tensor

# Two odd multipliers spread a pair of token numbers over the table; xor keeps order information.
_CURRENT_MULTIPLIER = 36313
_PREVIOUS_MULTIPLIER = 27191


def bigram_bucket(tokens_BT: Tensor, buckets: int) -> Tensor:
    """Bucket of each (previous, current) token pair; the first position of a row has its own bucket, the last.

    Args:
        tokens_BT: (B, T) int64.
    Returns:
        (B, T) int64 in 0..buckets-1.
    """
    mod = max(buckets - 1, 1)
    previous = F.pad(tokens_BT[:, :-1], (1, 0))
    bucket = ((tokens_BT * _CURRENT_MULTIPLIER) ^ (previous * _PREVIOUS_MULTIPLIER)) % mod
    bucket[:, 0] = buckets - 1
    return bucket


def bigram_embedding(tokens_BT: Tensor, table: Tensor, projection: Tensor, scale: Tensor) -> Tensor:
    """BigramHash: table (buckets, bigram dim) -> projection (D, bigram dim) -> (B, T, D), times a learned scale."""
    h = F.embedding(bigram_bucket(tokens_BT, table.size(0)), table)
    h = F.linear(h, projection)
    return h * scale.to(h.dtype)


def value_embedding(tokens_BT: Tensor, table: Tensor, projection: Tensor, scale: Tensor) -> Tensor:
    """(B, T, K * N) to add to attention values: table (V, ve dim) -> projection (K * N, ve dim), times a learned scale."""
    h = F.linear(F.embedding(tokens_BT, table), projection)
    return h * scale.to(h.dtype)

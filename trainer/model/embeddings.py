"""Embeddings of token pairs and of attention values. Sources: parameter-golf PRs 315, 488 (BigramHash), 549."""

import torch.nn.functional as F
from torch import Tensor

# Two odd multipliers spread pairs of token ids over the table. They differ, so the order of a pair counts.
_CURRENT_MULTIPLIER = 36313
_PREVIOUS_MULTIPLIER = 27191


def bigram_bucket(tokens_BT: Tensor, buckets: int) -> Tensor:
    """Return the bucket, (B, T) int64, of each (previous, current) token pair; the last one for a row's first position."""
    mod = max(buckets - 1, 1)
    previous = F.pad(tokens_BT[:, :-1], (1, 0))
    bucket = ((tokens_BT * _CURRENT_MULTIPLIER) ^ (previous * _PREVIOUS_MULTIPLIER)) % mod
    bucket[:, 0] = buckets - 1
    return bucket


def project_rows(index_BT: Tensor, table: Tensor, projection: Tensor, scale: Tensor) -> Tensor:
    """Return (B, T, D): rows of the table (buckets, K), projected by (D, K), times a learned scale (1,)."""
    h = F.linear(F.embedding(index_BT, table), projection)
    return h * scale.to(h.dtype)

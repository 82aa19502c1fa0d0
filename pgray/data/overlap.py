"""Find validation text inside training shards by fingerprints of 64 tokens.

A fingerprint is a hash of 64 consecutive tokens, so a copy is found at every offset. Only those with a small hash are kept,
in both splits alike, which makes the search fast and still independent of offsets.
Text counts as copied where consecutive kept fingerprints of the validation split, over 128 tokens or more, all stand in one
training shard. Text that the validation split itself repeats, such as licence notices, is boilerplate and does not count.

Source: exact-substring duplicates of 50 tokens as evidence of leakage, Lee et al. 2022, arXiv:2107.06499.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.data.shards import Tokens

NGRAM_TOKENS = 64
MIN_RUN_TOKENS = 128  # about 50 English words at 1,024 pieces; shorter repeats are quotations and common phrases
_CHUNK_TOKENS = 1 << 15  # its hashes fit into a core's cache
_NUM_KEPT = 1 << 20  # validation fingerprints that are kept; all of them if there are fewer
_TABLE_BITS = 22

_Hashes = npt.NDArray[np.uint64]
_Positions = npt.NDArray[np.int64]

_RANDOM = np.random.default_rng(0)
_OF_TOKEN = _RANDOM.integers(0, 1 << 64, 1 << 16, dtype=np.uint64)  # token -> its hash
_SLOT_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = _RANDOM.integers(0, 1 << 64, NGRAM_TOKENS.bit_length() - 1, dtype=np.uint64) | np.uint64(1)


@dataclass(frozen=True)
class Copied:
    """Validation text that one training shard contains. `first`: position of its first token in the validation split."""

    num_tokens: int
    first: int


class ValidationIndex:
    """The kept fingerprints of a validation split. Build it once, then look at one training shard after another.

    Args:
        tokens: (N,) uint16, all validation shards joined.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.num_tokens = len(tokens)
        self._limit = np.uint64(((1 << 64) - 1) // max(1, self.num_tokens // _NUM_KEPT))
        hashes, self._positions = _kept(tokens, self._limit)
        self._sorted, self._place, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        self._is_unique: npt.NDArray[np.bool_] = counts == 1
        self._table = np.zeros(1 << _TABLE_BITS, dtype=bool)
        self._table[_slot(self._sorted)] = True

    def hits(self, tokens: Tokens) -> npt.NDArray[np.bool_]:
        """Return which fingerprints, in the order of their positions, these training tokens contain."""
        found: npt.NDArray[np.bool_] = np.zeros(len(self._sorted), dtype=bool)
        if len(found):
            for hashes, _ in _chunks(tokens, self._limit):
                likely = hashes[self._table[_slot(hashes)]]
                place = np.minimum(np.searchsorted(self._sorted, likely), len(found) - 1)
                found[place[self._sorted[place] == likely]] = True
        found &= self._is_unique
        return found[self._place]

    def copied(self, hits: npt.NDArray[np.bool_]) -> Copied | None:
        """Return the validation text in runs of `MIN_RUN_TOKENS` or more that these hits cover; None if there is none."""
        edges = np.flatnonzero(np.diff(np.concatenate(([0], hits.astype(np.int8), [0]))))
        starts, ends = self._positions[edges[::2]], self._positions[edges[1::2] - 1] + NGRAM_TOKENS
        is_long = ends - starts >= MIN_RUN_TOKENS
        if not is_long.any():
            return None
        return Copied(int((ends - starts)[is_long].sum()), int(starts[is_long][0]))


def _slot(hashes: _Hashes) -> _Positions:
    mixed = hashes * _SLOT_FACTOR  # the upper bits of kept hashes are all small
    mixed >>= np.uint64(64 - _TABLE_BITS)
    return mixed.view(np.int64)


def _kept(tokens: Tokens, limit: np.uint64) -> tuple[_Hashes, _Positions]:
    chunks = list(_chunks(tokens, limit))
    if not chunks:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.concatenate([hashes for hashes, _ in chunks]), np.concatenate([positions for _, positions in chunks])


def _chunks(tokens: Tokens, limit: np.uint64) -> Iterator[tuple[_Hashes, _Positions]]:
    """Yield the kept fingerprints and their positions, chunk by chunk."""
    for start in range(0, len(tokens) - NGRAM_TOKENS + 1, _CHUNK_TOKENS):
        hashes = fingerprints(tokens[start : start + _CHUNK_TOKENS + NGRAM_TOKENS - 1])
        kept = np.flatnonzero(hashes < limit)
        yield hashes[kept], kept + start


def fingerprints(tokens: Tokens) -> _Hashes:
    """Return the hash of every run of `NGRAM_TOKENS` tokens: (N,) -> (N - NGRAM_TOKENS + 1,) uint64.

    The hash of 2n tokens is made of two hashes of n tokens, so that 64 tokens take six steps. Its upper bits are the good
    ones.
    """
    hashes = _OF_TOKEN[tokens]
    for level, factor in enumerate(_FACTORS):
        width = 1 << level
        longer = hashes[:-width] * factor
        longer += hashes[width:]
        hashes = longer
    return hashes

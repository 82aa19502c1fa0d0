"""The numbers of a quantization scheme. Torch-free; `trainer/quant/quantizer.py` does the rounding."""

from dataclasses import dataclass
from typing import Literal

Clip = Literal["absmax", "search", "sigma", "percentile"]
"""How the largest magnitude that a group of rows represents is chosen."""


@dataclass(frozen=True)
class Scheme:
    """How a matrix is rounded to integers. bits: 2..8. group_rows: rows that share one scale."""

    bits: int
    group_rows: int = 1
    clip: Clip = "absmax"
    clip_sigma: float = 4.0
    clip_percentile: float = 100.0
    scale_floor: float | None = None

    @property
    def q_max(self) -> int:
        return int(2 ** (self.bits - 1) - 1)


def num_groups(rows: int, group_rows: int) -> int:
    """Return the number of scales of a matrix with `rows` rows."""
    return -(-rows // group_rows)


def factors_are_smaller(shape: tuple[int, ...], rank: int, scheme: Scheme) -> bool:
    """Return whether two factors (rows, rank) and (rank, cols) take fewer bits than the matrix (rows, cols)."""
    rows, cols = shape

    def stored_bits(r: int, c: int) -> int:
        return r * c * scheme.bits + 16 * num_groups(r, scheme.group_rows)

    return rank < min(rows, cols) and stored_bits(rows, rank) + stored_bits(rank, cols) < stored_bits(rows, cols)

"""What an artifact will weigh, before it exists: what a config stores, tensor by tensor, and what that takes if its weights
were Gaussian.

Three factors turn this into a prediction: the weights' own bits per symbol against Gaussian ones, what the codec adds to
order-0 entropy, and what zlib saves on floats. `size_fit.py` takes the first two from trials that are finished; here are the
defaults for when there are none. Formats: `trainer/quant/artifact.py`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from trainer.config import Config
from trainer.model.shapes import parameter_shapes
from trainer.quant.scheme import Scheme, factors_are_smaller, num_groups
from trainer.quant.tensor_plan import TensorPlan, plan_tensors

Kind = Literal["int", "svd", "fp16", "fp32"]
Group = tuple[Kind, str, int]
"""How it is stored, tensor class, bits: what is predicted together."""

HEADER_BYTES_PER_TENSOR = 20.0  # measured: 19 to 24
FLOAT_FACTOR = 0.93  # zlib on fp16 scales and values; measured: 0.92 to 0.945

CODEC_FACTOR: dict[str, tuple[float, float, float]] = {
    "zlib": (1.165, 1.048, 1.010),
    "zstd": (1.018, 1.009, 1.007),
    "lzma": (1.049, 1.024, 1.015),
    "brotli": (1.014, 1.007, 1.005),
    "ans": (1.0, 1.0, 1.0),
}
"""Bytes over order-0 entropy at 4, 6 and 8 bits, measured on Gaussian 512 x 512 matrices with absmax scales. On small trained
models the codecs that see more than one symbol at a time do up to 4 % better: they find the columns that differ in scale."""

ANS_BYTES_PER_LEVEL, ANS_BYTES_PER_TENSOR = 1.6, 60.0  # the histograms, zlib-compressed

CLASS_FACTOR: dict[str, float] = {"mlp": 1.01, "attn": 1.025, "embed": 1.0, "bigram": 1.02, "value_embed": 1.04}
"""Bits per symbol over a Gaussian's, for weights that training has not moved far. Same source."""


@dataclass(frozen=True)
class StoredPart:
    """The stored tensors of one parameter that are stored alike."""

    group: Group
    num_tensors: int
    gaussian_bytes: float  # order-0 entropy of the symbols if the weights were Gaussian; 0 for floats
    float_bytes: float  # scales and float values, as written before zlib

    @property
    def bits(self) -> int:
        return self.group[2]


def parts_of(config: Config) -> list[StoredPart]:
    """Everything an artifact of this config stores; bytes are sums over the tensors of a part."""
    plans = plan_tensors(parameter_shapes(config), config.quant)
    return [part for plan in plans.values() for part in _parts(plan, config)]


def _parts(plan: TensorPlan, config: Config) -> Iterator[StoredPart]:
    num_int = sum(plan.int_layers)
    num_float = len(plan.int_layers) - num_int
    if num_float:
        kind: Kind = "fp32" if plan.tensor_class == "control" else "fp16"
        width = 4 if kind == "fp32" else 2
        group = (kind, str(plan.tensor_class), 8 * width)
        yield StoredPart(group, num_float, 0.0, float(width * num_float * plan.elements_each))
    if plan.scheme is None or not num_int:
        return
    rows, cols = plan.shape[-2:]
    rank = config.quant.svd_rank
    is_svd = bool(rank) and factors_are_smaller((rows, cols), rank, plan.scheme)
    matrices = [(rows, rank), (rank, cols)] if is_svd else [(rows, cols)]
    symbols = sum(r * c * _gaussian_bits(plan.scheme, c, config.quant.prune_frac) / 8 for r, c in matrices)
    scales = sum(2.0 * num_groups(r, plan.scheme.group_rows) for r, _ in matrices)
    group = ("svd" if is_svd else "int", str(plan.tensor_class), plan.scheme.bits)
    yield StoredPart(group, num_int, num_int * symbols, num_int * scales)


@cache
def _gaussian_bits(scheme: Scheme, cols: int, prune_frac: float) -> float:
    """Bits per symbol of a rounded Gaussian matrix whose scales are chosen as `scheme` says.

    A scale floor needs the weights' size: 1 / sqrt(cols), that of an orthogonal initialization.
    """
    largest = scheme.clip_sigma if scheme.clip == "sigma" else math.sqrt(2 * math.log(max(cols * scheme.group_rows, 2)))
    sigma = scheme.q_max / largest  # in integer steps
    if scheme.scale_floor is not None:
        sigma = min(sigma, 1 / math.sqrt(cols) / scheme.scale_floor)
    weights = [math.exp(-0.5 * (level / sigma) ** 2) for level in range(-scheme.q_max, scheme.q_max + 1)]
    total = math.fsum(weights)
    entropy = -math.fsum(p * math.log2(p) for w in weights if (p := w / total))
    kept = 1 - prune_frac
    return entropy if kept == 1 else kept * (entropy - math.log2(kept)) - prune_frac * math.log2(prune_frac)


def codec_factor(codec: str, bits: int) -> float:
    """What a codec makes of one byte of order-0 entropy, histograms of `ans` aside."""
    at4, at6, at8 = CODEC_FACTOR[codec]
    return at4 + (at6 - at4) * (bits - 4) / 2 if bits <= 6 else at6 + (at8 - at6) * (bits - 6) / 2


def fixed_bytes(parts: list[StoredPart], codec: str) -> float:
    """What does not depend on the symbols: headers, floats, histograms."""
    total = 0.0
    for part in parts:
        total += part.num_tensors * HEADER_BYTES_PER_TENSOR + part.float_bytes * FLOAT_FACTOR
        if codec == "ans" and part.gaussian_bytes:
            total += part.num_tensors * (ANS_BYTES_PER_LEVEL * 2**part.bits + ANS_BYTES_PER_TENSOR)
    return total


def default_symbol_factor(group: Group, maturity: float) -> float:
    """Bits per symbol against a Gaussian's where nothing was measured; `maturity` from `published.py`."""
    return CLASS_FACTOR.get(group[1], 1.02) * maturity

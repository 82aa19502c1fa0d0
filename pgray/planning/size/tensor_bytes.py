"""Predict the bytes of an artifact's tensors from its config alone, as if all weights were Gaussian.

Which tensors are stored, with how many bits, scales and floats, follows exactly from the config
(formats: `trainer/quant/artifact.py`). How many bits a symbol takes depends on the weights: `pgray/planning/size/fit.py`
corrects the Gaussian figure by finished trials, `pgray/planning/size/reference.py` by published artifacts.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from trainer.config import Config
from trainer.model.shapes import num_params, parameter_shapes
from trainer.quant.codecs import load_codec
from trainer.quant.scheme import Scheme, factors_are_smaller, num_groups
from trainer.quant.tensor_plan import plan_tensors

Group = tuple[Literal["int", "svd", "fp16", "fp32"], str, int]
"""How a tensor is stored, its class, its bits: tensors of one group are predicted together."""

HEADER_BYTES_PER_TENSOR = 20.0  # measured: 19 to 24
FLOAT_FACTOR = 0.93  # zlib on fp16 scales and values; measured: 0.92 to 0.945

CLASS_FACTOR: dict[str, float] = {"mlp": 1.01, "attn": 1.025, "embed": 1.0, "bigram": 1.02, "value_embed": 1.04}
"""Bits per symbol over a Gaussian's, for weights that training has not moved far; measured on small trained models."""


LARGE_PARAMS = 4e6  # published models have more than 17 million parameters, the `cpu-smoke` ones half a million
PUBLISHED_BITS = 6  # the fewest of the published models with a floor


@dataclass
class StoredGroup:
    """Sums over the tensors of one group."""

    num_tensors: int = 0
    gaussian_bytes: float = 0.0  # order-0 entropy of the symbols if the weights were Gaussian; 0 for floats
    float_bytes: float = 0.0  # scales and float values, before zlib


class StoredBytes:
    """What an artifact of `config` stores, by group."""

    def __init__(self, config: Config) -> None:
        self._codec = load_codec(config.export.codec)
        is_large = num_params(config) >= LARGE_PARAMS
        self.groups: dict[Group, StoredGroup] = defaultdict(StoredGroup)
        for plan in plan_tensors(parameter_shapes(config), config.quant).values():
            num_int = sum(plan.int_layers)
            if num_float := len(plan.int_layers) - num_int:
                width = 4 if plan.tensor_class == "control" else 2
                found = self.groups["fp32" if width == 4 else "fp16", plan.tensor_class, 8 * width]
                found.num_tensors += num_float
                found.float_bytes += width * num_float * plan.elements_each
            if plan.scheme is None:
                continue
            rows, cols = plan.shape[-2:]
            rank = config.quant.svd_rank
            is_svd = bool(rank) and factors_are_smaller((rows, cols), rank, plan.scheme)
            found = self.groups["svd" if is_svd else "int", plan.tensor_class, plan.scheme.bits]
            found.num_tensors += num_int
            for r, c in [(rows, rank), (rank, cols)] if is_svd else [(rows, cols)]:
                bits = _gaussian_bits(_floored(plan.scheme, config, is_large), c, config.quant.prune_frac)
                found.gaussian_bytes += num_int * r * c * bits / 8
                found.float_bytes += num_int * 2.0 * num_groups(r, plan.scheme.group_rows)
        self.gaussian_bytes = {
            group: found.gaussian_bytes for group, found in self.groups.items() if found.gaussian_bytes
        }

    @property
    def fixed_bytes(self) -> float:
        """Bytes that do not depend on the weights: headers, floats, and what the codec adds to each tensor."""
        return math.fsum(
            found.num_tensors
            * (HEADER_BYTES_PER_TENSOR + bool(found.gaussian_bytes) * self._codec.bytes_per_tensor(bits))
            + found.float_bytes * FLOAT_FACTOR
            for (_, _, bits), found in self.groups.items()
        )

    def symbol_bytes(self, factors: Mapping[Group, float]) -> float:
        """Return the compressed bytes of all symbols. `factors`: bits per symbol over a Gaussian's."""
        return math.fsum(
            gaussian * factors[group] * self._codec.size_factor(group[2])
            for group, gaussian in self.gaussian_bytes.items()
        )

    def default_factors(self, training_factor: float) -> dict[Group, float]:
        """Return bits per symbol over a Gaussian's where nothing was measured."""
        return {group: CLASS_FACTOR.get(group[1], 1.02) * training_factor for group in self.gaussian_bytes}


def _floored(scheme: Scheme, config: Config, is_large: bool) -> Scheme:
    """Return the scheme whose Gaussian bits to take.

    The published models that the training factor comes from have a floor under the clip value at 6 and 8 bits, so that
    the factor contains its effect. At fewer bits, and for small models, the floor acts on the Gaussian bits.
    """
    is_in_factor = is_large and scheme.bits >= PUBLISHED_BITS
    return replace(scheme, scale_floor=config.quant.scale_floor) if is_in_factor else scheme


@cache
def _gaussian_bits(scheme: Scheme, cols: int, prune_frac: float) -> float:
    """Return the bits per symbol of a Gaussian matrix that was pruned and rounded by `scheme`.

    A scale floor depends on the weights' size, for which 1 / sqrt(cols) is taken, as after orthogonal initialization.
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

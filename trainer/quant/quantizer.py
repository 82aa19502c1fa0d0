"""Rounds matrices to symmetric integers with one fp16 scale per row or per group of rows.

Training (fake quantization) and export both call `quantize`, so that QAT trains the weights of the artifact, bit for bit.
Shapes: L layers, O output rows, I inputs, G groups of rows.

Sources: absmax per row, Dettmers et al. 2022, arXiv:2208.07339; fixed percentile of int8 rows, the challenge's baseline;
clip search, "GPTQ-lite" of parameter-golf PR 549;
grouped scales, PR 488; the scale floor that destroyed PR 1032, issue 775.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.quant.scheme import Scheme, num_groups

SEARCH_PERCENTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)
SMALLEST_SCALE = 2.0**-24  # the smallest positive fp16


@dataclass(frozen=True)
class Quantized:
    """q_LOI int8 with |q| <= q_max; scale_LG float16, weight units per integer step."""

    q_LOI: Tensor
    scale_LG: Tensor
    group_rows: int

    def dequantize(self) -> Tensor:
        """Return the weights, (L, O, I) float32."""
        return self.q_LOI.float() * _per_row(self.scale_LG.float(), self.group_rows, self.q_LOI.size(1))


def quantize(w_LOI: Tensor, scheme: Scheme) -> Quantized:
    """Round a stack of matrices to signed integers of `scheme.bits` bits.

    The clip value of each group of rows is its largest magnitude (`absmax`), `clip_sigma` standard deviations
    (`sigma`), the `clip_percentile` of magnitudes (`percentile`), or the percentile with the least squared error
    (`search`). A group of zeros gets scale 1.

    Args:
        w_LOI: (L, O, I) float32, finite. Groups never span two layers; the last group of a layer may be smaller.
    Returns:
        Quantized on the same device.
    Raises:
        ValueError: w_LOI is not 3-D, or bits is outside 2..8.
    Guarantees:
        With `absmax`, |w - q * scale| <= scale / 2 up to the rounding of the scale to fp16.
    """
    if w_LOI.dim() != 3:
        raise ValueError(f"w_LOI must be (layers, out, in), got shape {tuple(w_LOI.shape)}")
    if not 2 <= scheme.bits <= 8:
        raise ValueError(f"bits must be 2..8, got {scheme.bits}")
    grouped_LGN, valid_G1 = _grouped(w_LOI, scheme.group_rows)
    if scheme.clip == "sigma":
        count = valid_G1 * w_LOI.size(2)
        mean = grouped_LGN.sum(-1, keepdim=True) / count
        variance = (grouped_LGN.square().sum(-1, keepdim=True) / count - mean.square()).clamp_min(0)
        scale_LG = _scale(scheme.clip_sigma * variance.sqrt().squeeze(-1), scheme)
    elif scheme.clip == "percentile":
        scale_LG = _scale(_percentiles(grouped_LGN.abs(), [scheme.clip_percentile / 100])[0], scheme)
    elif scheme.clip == "search":
        scale_LG = _searched_scale(grouped_LGN, scheme)
    else:
        scale_LG = _scale(grouped_LGN.abs().amax(-1), scheme)
    q = w_LOI / _per_row(scale_LG.float(), scheme.group_rows, w_LOI.size(1))
    q = q.round_().clamp_(-scheme.q_max, scheme.q_max)
    return Quantized(q.to(torch.int8), scale_LG, scheme.group_rows)


def half_step(w_LOI: Tensor, scheme: Scheme) -> Tensor:
    """Return half a quantization step of each row, (L, O, 1) float32: group max / (2 q_max)."""
    grouped_LGN, _ = _grouped(w_LOI, scheme.group_rows)
    half_LG = grouped_LGN.abs().amax(-1) / (2 * scheme.q_max)
    return _per_row(half_LG, scheme.group_rows, w_LOI.size(1))


def _grouped(w_LOI: Tensor, group_rows: int) -> tuple[Tensor, Tensor]:
    """Return the groups, (L, G, group_rows * I), the last padded with zeros, and each group's number of real rows (G, 1)."""
    layers, rows, inputs = w_LOI.shape
    groups = num_groups(rows, group_rows)
    padding = groups * group_rows - rows
    padded = F.pad(w_LOI, (0, 0, 0, padding)) if padding else w_LOI
    valid = torch.full((groups, 1), float(group_rows), device=w_LOI.device)
    valid[-1] = group_rows - padding
    return padded.reshape(layers, groups, group_rows * inputs), valid


def _per_row(value_LG: Tensor, group_rows: int, rows: int) -> Tensor:
    """Repeat each group's value for its rows: (L, G) -> (L, rows, 1)."""
    if group_rows == 1:
        return value_LG.unsqueeze(-1)
    return value_LG.repeat_interleave(group_rows, dim=1)[:, :rows].unsqueeze(-1)


def _scale(clip_LG: Tensor, scheme: Scheme) -> Tensor:
    """Return the fp16 scales of clip values: 1 for a group of zeros, and at least `scheme.scale_floor`."""
    scale = clip_LG / scheme.q_max
    if scheme.scale_floor is not None:
        scale = scale.clamp_min(scheme.scale_floor)
    return torch.where(clip_LG == 0, torch.ones_like(scale), scale.clamp_min(SMALLEST_SCALE)).half()


def _percentiles(magnitude_LGN: Tensor, shares: Sequence[float]) -> list[Tensor]:
    """Return the percentiles, given as shares of 1, of each group's N entries, (L, G), interpolated linearly.

    The shares are close to 1, so the largest few entries are enough: top-k, not a sort.
    """
    n = magnitude_LGN.size(-1)
    deepest = min(n, int((1 - min(shares)) * (n - 1)) + 2)
    top = magnitude_LGN.topk(deepest, dim=-1).values
    clips = []
    for share in shares:
        depth = (1 - share) * (n - 1)
        below = min(int(depth), deepest - 1)
        above = min(below + 1, deepest - 1)
        clips.append(torch.lerp(top[..., below], top[..., above], depth - below))
    return clips


def _searched_scale(w_LGN: Tensor, scheme: Scheme) -> Tensor:
    """Return, per group, the scale of the percentile of |w| that gives the least squared error."""
    errors, scales = [], []
    for clip_LG in _percentiles(w_LGN.abs(), SEARCH_PERCENTILES):
        scales.append(_scale(clip_LG, scheme))
        step = scales[-1].float().unsqueeze(-1)
        q = (w_LGN / step).round_().clamp_(-scheme.q_max, scheme.q_max)
        errors.append((q.mul_(step) - w_LGN).square_().sum(-1))
    best = torch.stack(errors).argmin(0, keepdim=True)  # of equal errors the first
    return torch.stack(scales).gather(0, best)[0]

"""Depth recurrence: the order in which blocks run, and what is added when they run again.

`loops` (PR 51): all blocks n times in order, U-Net skips over the virtual layers, LoRA on q and v of every later pass.
`gated` (PR 1032): the last R layers S - 1 more times; after each of these block calls x <- z * new + (1 - z) * old, z =
sigmoid(gate([new, old])). Each of the R blocks has a gate; each call adds an embedding of its own to the block's input.
`partial`: a few layers run twice, from a gate on.

The schedule is an argument of the model's forward pass, so each schedule has its own compiled graph; both are compiled
before the clock starts.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import Config

GATE_BIAS_INIT = -2.0


@dataclass(frozen=True)
class BlockCall:
    """One virtual layer: a run of block `layer` in pass `pass_index` (0 = first)."""

    layer: int
    pass_index: int = 0
    takes_part_in_skips: bool = True


def block_calls(config: Config, is_looped: bool) -> list[BlockCall]:
    """Return the runs of blocks in order. `is_looped`: whether the gate of `partial` is open."""
    layers, recurrence = config.model.layers, config.recurrence
    if recurrence.kind == "loops":
        return [BlockCall(layer, n) for n in range(recurrence.loops) for layer in range(layers)]
    calls = [BlockCall(layer) for layer in range(layers)]
    if recurrence.kind == "partial" and is_looped:
        after = max(recurrence.layers) + 1
        again = [BlockCall(layer, 1, takes_part_in_skips=False) for layer in sorted(recurrence.layers)]
        calls[after:after] = again
    return calls


def low_rank(x_BTD: Tensor, down_RD: Tensor, up_OR: Tensor) -> Tensor:
    """Apply LoRA, (B, T, D) -> (B, T, O) through rank R (Hu et al. 2021, arXiv:2106.09685). `up` starts at zero."""
    return F.linear(F.linear(x_BTD, down_RD), up_OR)


def gated_update(new: Tensor, old: Tensor, gate_weight: Tensor, gate_bias: Tensor) -> Tensor:
    """Return z * new + (1 - z) * old with z = sigmoid(gate([new, old])) per dim. gate_weight (D, 2D), gate_bias (D,)."""
    z = torch.sigmoid(F.linear(torch.cat((new, old), dim=-1), gate_weight) + gate_bias.to(new.dtype))
    return z * new + (1 - z) * old

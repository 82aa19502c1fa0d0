"""Makes stored tensors from float weights: prune, factor, quantize. `trainer/quant/artifact.py` packs them.

QAT calls the same `quantize` on the same stacks of layers, so its weights equal the exported ones bit for bit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainer.quant.config import QuantConfig
from trainer.quant.quantizer import Quantized, quantize
from trainer.quant.scheme import factors_are_smaller
from trainer.quant.tensor_plan import TensorPlan, plan_tensors, shapes_of


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of an artifact.

    `int`: q (O, I) int8 and scale (G,) fp16 in `parts`. `svd`: two such pairs, left (O, r) and right (r, I) factors.
    `fp16` / `fp32`: the values in `data`.
    """

    name: str
    tensor_class: str
    stored_as: Literal["int", "fp16", "fp32", "svd"]
    shape: tuple[int, ...]
    bits: int
    group_rows: int = 1
    parts: tuple[tuple[Tensor, Tensor], ...] = ()
    data: Tensor | None = None

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    def dequantize(self) -> Tensor:
        """Return the float32 values, of `shape`, that the model computes with after unpacking."""
        if self.data is not None:
            return self.data.float()
        factors = [Quantized(q[None], s[None], self.group_rows).dequantize()[0] for q, s in self.parts]
        whole = factors[0] if len(factors) == 1 else factors[0] @ factors[1]
        return whole.reshape(self.shape)


@torch.no_grad()
def store_weights(weights: Mapping[str, Tensor], quant: QuantConfig) -> list[StoredTensor]:
    """Prune, factor and quantize parameters on their device. Return one tensor per stored name, in order, on the CPU."""
    stored: list[StoredTensor] = []
    for name, plan in plan_tensors(shapes_of(weights), quant).items():
        stored.extend(_store(plan, weights[name].float(), quant))
    return stored


def assemble(stored: list[StoredTensor]) -> dict[str, Tensor]:
    """Return the parameters of stored tensors; the layers of a bank are stacked again."""
    layers: dict[str, list[Tensor]] = {}
    for tensor in stored:
        layers.setdefault(tensor.name.split(".", 1)[0], []).append(tensor.dequantize())
    is_bank = {t.name.split(".", 1)[0] for t in stored if "." in t.name}
    return {name: torch.stack(parts) if name in is_bank else parts[0] for name, parts in layers.items()}


def _store(plan: TensorPlan, w: Tensor, quant: QuantConfig) -> list[StoredTensor]:
    if plan.tensor_class == "control":
        return [StoredTensor(plan.name, "control", "fp32", plan.shape, 32, data=w.cpu())]
    stack = plan.as_stack(w)
    if plan.scheme is not None and quant.prune_frac:
        stack = torch.stack(
            [prune(m, quant.prune_frac) if is_int else m for m, is_int in zip(stack, plan.int_layers, strict=True)]
        )
    quantized = quantize(stack, plan.scheme) if plan.scheme else None
    return [
        _store_layer(plan, i, name, stack[i], quantized if plan.int_layers[i] else None, quant)
        for i, name in enumerate(plan.stored_names)
    ]


def _store_layer(
    plan: TensorPlan, index: int, name: str, w: Tensor, quantized: Quantized | None, quant: QuantConfig
) -> StoredTensor:
    shape = tuple(w.shape) if plan.is_bank else plan.shape
    if quantized is None or plan.scheme is None:
        return StoredTensor(name, plan.tensor_class, "fp16", shape, 16, data=w.half().cpu())
    scheme = plan.scheme
    if quant.svd_rank and factors_are_smaller(shape, quant.svd_rank, scheme):
        parts = tuple(_as_part(quantize(factor[None], scheme), 0) for factor in svd_factors(w, quant.svd_rank))
        return StoredTensor(name, plan.tensor_class, "svd", shape, scheme.bits, scheme.group_rows, parts)
    part = _as_part(quantized, index)
    return StoredTensor(name, plan.tensor_class, "int", shape, scheme.bits, scheme.group_rows, (part,))


def _as_part(quantized: Quantized, index: int) -> tuple[Tensor, Tensor]:
    return quantized.q_LOI[index].cpu(), quantized.scale_LG[index].cpu()


def prune(w: Tensor, frac: float) -> Tensor:
    """Zero the `frac` of the entries that are smallest in magnitude (PR 1032: prune, then quantize)."""
    count = int(frac * w.numel())
    if count == 0:
        return w
    smallest = w.abs().flatten().argsort()[:count]
    return w.flatten().index_fill(0, smallest, 0.0).view_as(w)


def svd_factors(w_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the best rank-r approximation as factors (O, r) and (r, I); each has the roots of the singular values."""
    u, s, vh = torch.linalg.svd(w_OI, full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * vh[:rank]

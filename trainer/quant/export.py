"""Makes stored tensors from float weights: prune, factor, quantize. `trainer/quant/artifact.py` packs them.

QAT calls the same `quantize` on the same stacks of layers, so its weights equal the exported ones bit for bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainer.quant.config import QuantConfig
from trainer.quant.quantizer import Quantized, quantize
from trainer.quant.scheme import factors_are_smaller
from trainer.quant.tensor_plan import TensorPlan, plan_tensors, shapes_of

StoredAs = Literal["int", "fp16", "fp32", "svd"]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of an artifact.

    `int`: q (O, I) int8 and scale (G,) fp16 in `parts`. `svd`: two such pairs, left (O, r) and right (r, I) factors.
    `fp16` / `fp32`: the values in `data`.
    """

    name: str
    tensor_class: str
    stored_as: StoredAs
    shape: tuple[int, ...]
    bits: int
    group_rows: int = 1
    parts: tuple[tuple[Tensor, Tensor], ...] = ()
    data: Tensor | None = None

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
    plans = plan_tensors(shapes_of(weights), quant)
    return [tensor for name, plan in plans.items() for tensor in _store(plan, weights[name].float(), quant)]


def assemble(stored: list[StoredTensor]) -> dict[str, Tensor]:
    """Return the parameters of stored tensors; the layers of a bank are stacked again."""
    layers: dict[str, list[Tensor]] = {}
    for tensor in stored:
        layers.setdefault(tensor.name.split(".", 1)[0], []).append(tensor.dequantize())
    is_bank = {t.name.split(".", 1)[0] for t in stored if "." in t.name}
    return {name: torch.stack(parts) if name in is_bank else parts[0] for name, parts in layers.items()}


def _store(plan: TensorPlan, w: Tensor, quant: QuantConfig) -> Iterator[StoredTensor]:
    if plan.tensor_class == "control":
        yield StoredTensor(plan.name, "control", "fp32", plan.shape, 32, data=w.cpu())
        return
    scheme, stack = plan.scheme, plan.as_stack(w)
    shape = tuple(stack.shape[1:])
    if scheme is not None and quant.prune_frac:
        pruned = [prune(m, quant.prune_frac) if is_int else m for m, is_int in zip(stack, plan.int_layers, strict=True)]
        stack = torch.stack(pruned)
    whole = quantize(stack, scheme) if scheme else None
    for i, (name, is_int) in enumerate(zip(plan.stored_names, plan.int_layers, strict=True)):
        if scheme is None or whole is None or not is_int:
            yield StoredTensor(name, plan.tensor_class, "fp16", shape, 16, data=stack[i].half().cpu())
            continue
        kind: StoredAs = "int"
        matrices = [(whole, i)]
        if quant.svd_rank and factors_are_smaller(shape, quant.svd_rank, scheme):
            kind = "svd"
            matrices = [(quantize(factor[None], scheme), 0) for factor in svd_factors(stack[i], quant.svd_rank)]
        parts = tuple((q.q_LOI[layer].cpu(), q.scale_LG[layer].cpu()) for q, layer in matrices)
        yield StoredTensor(name, plan.tensor_class, kind, shape, scheme.bits, scheme.group_rows, parts)


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

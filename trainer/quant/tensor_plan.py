"""Decides how each parameter is stored: as integers of some scheme, fp16 or fp32.

A bank is stored as one tensor per layer (`mlp_up.3`), any other parameter as one tensor. A matrix gets the bits of its
class; small ones, those of `quant.keep_fp16` and those of 16-bit classes stay fp16. Control tensors stay fp32. Torch-free,
so that `pgray plan` uses the same rules as export.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from trainer.quant.config import QuantConfig
from trainer.quant.scheme import Scheme
from trainer.quant.tensor_classes import CLASS_OF, TensorClass

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TensorPlan:
    """How one parameter is stored."""

    name: str
    tensor_class: TensorClass | Literal["control"]
    is_bank: bool
    shape: tuple[int, ...]
    scheme: Scheme | None  # None: no stored tensor becomes integers
    int_layers: tuple[bool, ...]  # per stored tensor, whether it becomes integers

    @property
    def stored_names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}.{i}" for i in range(self.shape[0])) if self.is_bank else (self.name,)

    @property
    def elements_each(self) -> int:
        return math.prod(self.shape) // len(self.stored_names)

    @property
    def int_elements(self) -> int:
        return self.elements_each * sum(self.int_layers)

    def as_stack(self, w: "Tensor") -> "Tensor":
        """Return the parameter as (stored tensors, O, I), which the quantizer takes."""
        return w if self.is_bank else w.reshape(1, *self.shape)


def plan_tensor(name: str, shape: tuple[int, ...], quant: QuantConfig) -> TensorPlan:
    tensor_class: TensorClass | Literal["control"] = CLASS_OF.get(name, "control")
    is_bank = tensor_class != "control" and len(shape) == 3
    bits = getattr(quant.bits, tensor_class, 16)  # a control tensor has none
    plan = TensorPlan(name, tensor_class, is_bank, shape, None, (False,) * (shape[0] if is_bank else 1))
    if bits == 16 or plan.elements_each <= quant.fp16_max_elements:
        return plan
    flags = tuple(
        not any(fnmatchcase(stored, pattern) or fnmatchcase(name, pattern) for pattern in quant.keep_fp16)
        for stored in plan.stored_names
    )
    clip = quant.int8_clip if bits == 8 and quant.int8_clip else quant.clip
    scheme = Scheme(bits, quant.group_rows, clip, quant.clip_sigma, quant.clip_percentile, _scale_floor(bits, quant))
    return replace(plan, scheme=scheme, int_layers=flags) if any(flags) else plan


def _scale_floor(bits: int, quant: QuantConfig) -> float | None:
    """Return the smallest scale of matrices of these bits. A floor of the clip value is one of the scale, by bits."""
    floors = [quant.scale_floor] if quant.scale_floor is not None else []
    if quant.clip_floor is not None:
        floors.append(quant.clip_floor / Scheme(bits).q_max)
    return max(floors, default=None)


def plan_tensors(shapes: Mapping[str, tuple[int, ...]], quant: QuantConfig) -> dict[str, TensorPlan]:
    """Return how each parameter of a model is stored, in the model's order."""
    return {name: plan_tensor(name, tuple(shape), quant) for name, shape in shapes.items()}


def shapes_of(named: "Mapping[str, Tensor]") -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in named.items()}

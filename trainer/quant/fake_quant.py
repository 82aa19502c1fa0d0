"""Fake quantization: what the exporter would write, as float weights. QAT and SQWA are this function.

The gradient is passed straight through by construction: the optimizer applies the gradient of the compute weights to the
master weights (Bengio et al. 2013, arXiv:1308.3432). `mode: swap` of PR 488 (overwrite the weights by their dequantized
values around forward and backward, then restore) is the same computation in this house, so both names mean this.
"""

from torch import Tensor

from trainer.quant.quantizer import quantize
from trainer.quant.tensor_plan import TensorPlan


def fake_quantize(w: Tensor, plan: TensorPlan) -> Tensor:
    """Quantize and dequantize a parameter as export does. Layers that export keeps in fp16 pass unchanged.

    Args:
        w: a parameter of plan.shape, float32.
    Returns:
        The same shape, float32; equal to the exported weights bit for bit where they become integers.
    """
    if plan.scheme is None:
        return w
    stack = plan.as_stack(w)
    rounded = quantize(stack, plan.scheme).dequantize()
    if not all(plan.int_layers):
        rounded = rounded.clone()
        for layer, is_int in enumerate(plan.int_layers):
            if not is_int:
                rounded[layer] = stack[layer]
    return rounded.reshape(w.shape)

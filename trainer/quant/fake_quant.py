"""Fake quantization: float weights with the values that export would write. QAT and SQWA use it.

The gradient passes straight through: the optimizer applies the gradient of the compute weights to the master weights
(Bengio et al. 2013, arXiv:1308.3432). `mode: swap` of PR 488 (overwrite the weights with their dequantized values for
forward and backward, then restore them) is the same computation here.
"""

from torch import Tensor

from trainer.quant.quantizer import quantize
from trainer.quant.tensor_plan import TensorPlan


def fake_quantize(w: Tensor, plan: TensorPlan) -> Tensor:
    """Quantize and dequantize a float32 parameter of plan.shape as export does.

    Layers that become integers then equal the exported weights bit for bit; layers kept in fp16 stay unchanged.
    """
    if plan.scheme is None:
        return w
    stack = plan.as_stack(w)
    rounded = quantize(stack, plan.scheme).dequantize()
    for layer, is_int in enumerate(plan.int_layers):
        if not is_int:
            rounded[layer] = stack[layer]
    return rounded.reshape(w.shape)

"""Is a technique alive? Measured at run time, written into the record.

QAT is live when, with its gate open, the compute weights equal what export would write for the same master weights, and
the loss is not what it was with the gate closed. Its coverage is the share of exported integer elements that it touches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import Config
from trainer.evaluate import Forward, Score
from trainer.quant.export import assemble, store_weights
from trainer.weights import NO_GATES, QAT_ONLY, Weights

SILENCED = ("attn_scale", "mlp_scale")


@dataclass(frozen=True)
class QatCheck:
    is_live: bool
    coverage: float
    note: str
    is_final: bool = True  # False: nothing could be seen yet, look again after the next update


def qat_coverage(weights: Weights) -> float:
    """Share of the elements exported as integers that QAT fake-quantizes, 0..1."""
    exported = sum(plan.int_elements for plan in weights.plans.values())
    touched = sum(plan.int_elements for name, plan in weights.plans.items() if weights.is_fake_quantized(name))
    return touched / exported if exported else 0.0


@torch.no_grad()
def check_qat(
    weights: Weights, config: Config, forward: Forward, tokens: Tensor, targets: Tensor, is_start: bool = False
) -> QatCheck:
    """Open the gate, compare with the exporter, and compare the losses of one micro-batch. Leaves the gate open.

    Args:
        is_start: before the first few updates, when output projections are still zero and may hide the others.
    """
    coverage = qat_coverage(weights)
    weights.write(NO_GATES)
    loss_off = forward(tokens, targets).double().mean()
    weights.write(QAT_ONLY)
    loss_on = forward(tokens, targets).double().mean()
    exact = config.quant.model_copy(update={"prune_frac": 0.0, "svd_rank": 0})
    exported = assemble(store_weights(weights.master, exact))
    differing = [
        name
        for name, plan in weights.plans.items()
        if weights.is_fake_quantized(name)
        and not _int_layers_equal(plan.int_layers, weights.compute[name], exported[name])
    ]
    if coverage == 0:
        note = "QAT is on but covers none of the exported integer elements"
        return QatCheck(False, coverage, f"{note}: check qat.scope, quant.bits and quant.fp16_max_elements")
    if differing:
        return QatCheck(False, coverage, f"compute weights differ from the exporter's in {', '.join(differing)}")
    is_changed = any(
        not torch.equal(weights.compute[name].detach(), w)
        for name, w in weights.master.items()
        if weights.is_fake_quantized(name)
    )
    if bool(loss_on == loss_off) and is_changed and is_start:
        return QatCheck(True, coverage, "no effect on the loss yet: projections start at zero", is_final=False)
    if bool(loss_on == loss_off):
        return QatCheck(
            False, coverage, f"the loss did not change when QAT was switched on ({loss_on.item():.6f} nats)"
        )
    return QatCheck(True, coverage, f"loss {loss_off.item():.6f} -> {loss_on.item():.6f} nats at switch-on")


def _int_layers_equal(int_layers: tuple[bool, ...], compute: Tensor, exported: Tensor) -> bool:
    compute = compute.detach().cpu()
    if compute.dim() < 3:
        return torch.equal(compute, exported)
    return all(torch.equal(compute[i], exported[i]) for i, is_int in enumerate(int_layers) if is_int)


def antilayer(weights: Mapping[str, Tensor], score: Callable[[Mapping[str, Tensor]], Score]) -> list[dict[str, float]]:
    """The anti-layer diagnostic of PR 1032: zero one layer's attn_scale and mlp_scale at a time, and evaluate.

    Args:
        weights: the unpacked artifact's.
        score: plain evaluation of a set of weights.
    Returns:
        Per layer: its number, the bpb without it, and how much worse that is than with it.
    """
    whole = score(weights).bpb
    rows = []
    for layer in range(weights["attn_scale"].size(0)):
        silenced = dict(weights)
        for name in SILENCED:
            silenced[name] = weights[name].clone()
            silenced[name][layer] = 0
        bpb = score(silenced).bpb
        rows.append({"layer": layer, "bpb_without": bpb, "delta_bpb": bpb - whole})
    return rows

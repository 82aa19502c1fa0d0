"""Checks at run time whether QAT has an effect, and writes the notes that a reader of a result needs.

QAT is live if, with its gate open, the compute weights equal what export would write for the same master weights, and the
loss differs from the loss with the gate closed. Its coverage is the share of exported integer elements that it quantizes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import Config
from trainer.evaluation.scoring import Forward, Score
from trainer.limits import EVAL_CAP_S, TRAIN_CAP_S, latest_train_s
from trainer.optim.weights import NO_GATES, QAT_ONLY, Weights
from trainer.quant.export import assemble, store_weights
from trainer.records.fingerprint import average_key
from trainer.records.results import TrainingRecord

SILENCED = ("attn_scale", "mlp_scale")


@dataclass(frozen=True)
class QatCheck:
    is_live: bool
    coverage: float
    note: str
    is_final: bool = True  # False: no effect can show yet; check again after the next update


@torch.no_grad()
def check_qat(
    weights: Weights, config: Config, forward: Forward, tokens: Tensor, targets: Tensor, is_start: bool = False
) -> QatCheck:
    """Switch QAT on, compare the weights with the exported ones, and the loss of one micro-batch with that without QAT.

    Write the compute weights again afterwards.

    Args:
        is_start: in the first few steps, when output projections are still zero and may hide an effect.
    """
    covered = [name for name in weights.plans if weights.is_fake_quantized(name)]
    exported_elements = sum(plan.int_elements for plan in weights.plans.values())
    coverage = sum(weights.plans[name].int_elements for name in covered) / max(exported_elements, 1)
    if coverage == 0:
        note = "QAT is on but covers none of the exported integer elements"
        return QatCheck(False, coverage, f"{note}: check qat.scope, quant.bits and quant.fp16_max_elements")
    weights.write(NO_GATES)
    loss_off = forward(tokens, targets).double().mean().item()
    weights.write(QAT_ONLY)
    loss_on = forward(tokens, targets).double().mean().item()
    exact = config.quant.model_copy(update={"prune_frac": 0.0, "svd_rank": 0})
    exported = assemble(store_weights(weights.master, exact))
    differing = [
        name
        for name in covered
        if not _int_layers_equal(weights.plans[name].int_layers, weights.compute[name], exported[name])
    ]
    if differing:
        return QatCheck(False, coverage, f"compute weights differ from the exporter's in {', '.join(differing)}")
    if loss_on != loss_off:
        return QatCheck(True, coverage, f"loss {loss_off:.6f} -> {loss_on:.6f} nats at switch-on")
    if is_start and any(not torch.equal(weights.compute[name], weights.master[name]) for name in covered):
        return QatCheck(True, coverage, "no effect on the loss yet: projections start at zero", is_final=False)
    return QatCheck(False, coverage, f"the loss did not change when QAT was switched on ({loss_on:.6f} nats)")


def _int_layers_equal(int_layers: tuple[bool, ...], compute: Tensor, exported: Tensor) -> bool:
    compute = compute.detach().cpu()
    if compute.dim() < 3:
        return torch.equal(compute, exported)
    return all(torch.equal(compute[i], exported[i]) for i, is_int in enumerate(int_layers) if is_int)


def antilayer(
    weights: Mapping[str, Tensor], whole: Score, score: Callable[[Mapping[str, Tensor]], Score]
) -> list[dict[str, float]]:
    """Evaluate without one layer at a time: its attn_scale and mlp_scale are set to zero (PR 1032).

    Args:
        whole: the plain score of `weights`; `score` returns such a score of other weights.
    Returns:
        Per layer: its number, the bpb without it, and how much worse that is.
    """
    rows = []
    for layer in range(weights["attn_scale"].size(0)):
        silenced = dict(weights)
        for name in SILENCED:
            silenced[name] = weights[name].clone()
            silenced[name][layer] = 0
        bpb = score(silenced).bpb
        rows.append({"layer": layer, "bpb_without": bpb, "delta_bpb": bpb - whole.bpb})
    return rows


def result_notes(config: Config, record: TrainingRecord, code_sha: str, eval_s: float) -> list[str]:
    """Return the notes that a reader of the numbers needs. The result holds them, and tables print them."""
    average = record.average(average_key(config))
    quant, is_qat = config.quant, record.qat_on_step is not None
    never_looped = config.recurrence.kind == "partial" and record.recurrence_on_step is None
    notes = [
        (record.qat_is_live is False, record.qat_note or "QAT is not live"),
        (average.never_began, "the average never began: the last weights were exported"),
        (never_looped, "partial recurrence never began: evaluated without the second pass"),
        (
            is_qat and (quant.svd_rank or quant.prune_frac),
            "QAT trained unpruned, unfactored matrices, but export pruned or factored them",
        ),
        (
            record.train_s > latest_train_s(record.step_ms),
            f"training took {record.train_s:.1f} s, over the cap of {TRAIN_CAP_S:.0f} s",
        ),
        (eval_s > EVAL_CAP_S, f"evaluation took {eval_s:.0f} s, over the cap of {EVAL_CAP_S:.0f} s"),
        (
            record.code_sha != code_sha,
            f"weights were trained by other code, {record.code_sha or record.git_sha or 'unknown'}",
        ),
    ]
    return [note for applies, note in notes if applies]

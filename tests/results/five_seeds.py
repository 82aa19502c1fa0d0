"""Writes a run folder like that of a sweep on eight GPUs: five seeds, curves, gates, an arm over the cap, failures, a kill."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tests.results.synthetic import Run, result
from trainer.records.files import write_json, write_text
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.records.states import TrialState

SEEDS = (1, 2, 3, 4, 5)
HOSTILE = "<script>alert(1)</script>"
SWEEP = f"""name: five-seeds
question: Does late QAT & {HOSTILE} pay at 16 MB?
control: int6
"""
ARMS: dict[str, dict[str, Any]] = {  # effect in bpb, gap, step_ms, model_bytes, and what the arm sets
    "int6": {"set": {}},
    "late-qat": {"effect": -0.006, "gap": 0.004, "step_ms": 85.0, "set": {"qat.enabled": True}, "qat": True},
    "qna": {"effect": 0.0004, "gap": 0.011, "set": {"qna.magnitude": 1.0}},
    "wide": {"effect": -0.012, "bytes": 16_900_000, "step_ms": 97.0, "set": {"model.dim": 576}},
    "int4-mlp": {"effect": 0.009, "gap": 0.021, "bytes": 12_100_000, "set": {"quant.bits.mlp": 4}, "like": "int6"},
    "int4-mlp+late-qat-and-a-long-name": {
        "effect": 0.001, "gap": 0.008, "bytes": 12_200_000, "step_ms": 86.0, "qat": True,
        "set": {"quant.bits.mlp": 4, "qat.enabled": True},
    },
    "deep-delta": {"effect": 0.015, "step_ms": 118.0, "set": {"model.deep_delta": True}},
    HOSTILE: {"effect": 0.002, "set": {"model.leaky_slope": 0.75}},
    "muon-vs": {"fails": "diverged", "set": {"optim.muon_variant": "muon_vs"}},
    "svd": {"fails": "killed", "set": {"quant.svd_rank": 24}},
    "waiting": {"fails": "queued", "set": {}},
}  # fmt: skip
_CLOCK_S = 590.0


def write_five_seeds(root: Path) -> RunLayout:
    """Write the run, with its arms in the order of `ARMS`."""
    layout = Run(root, SWEEP).layout
    for arm, about in ARMS.items():
        for seed in SEEDS[:2] if about.get("fails") == "killed" else SEEDS:
            _write_trial(layout, arm, seed, about)
    write_json(
        layout.provenance,
        {
            "at": 1.8e9, "git_sha": "a" * 40, "git_is_dirty": True, "command": "pgray run five.yaml", "python": "3.12.1",
            "platform": "Linux", "host": "node-7", "versions": {"torch": "2.13.0", "ray": None}, "sweep_file": "five.yaml",
            "sweep_sha256": "b" * 64, "preset": "sp1024-11l", "set": {"train.wallclock_s": 600}, "control": "int6",
            "machine": {"gpus": 8, "cpus": 16, "nodes": 1, "nproc": 8}, "earlier": [],
        },
    )  # fmt: skip
    return layout


def trial_id(arm: str, seed: int) -> str:
    """Return an id that is a valid folder name, whatever the name of the arm."""
    return f"arm{list(ARMS).index(arm)}-s{seed}-0"


def _write_trial(layout: RunLayout, arm: str, seed: int, about: dict[str, Any]) -> None:
    trained, folder = f"{about.get('like', arm).strip('<>/()')}-{seed}", layout.trial(trial_id(arm, seed))
    fails, step_ms = about.get("fails"), about.get("step_ms", 83.0)

    def enter(state: TrialState, **fields: Any) -> None:
        entry = LedgerEntry(
            at=1.8e9, sweep="five-seeds", arm=arm, seed=seed, trial_id=trial_id(arm, seed), train_fingerprint=trained,
            state=state, **fields,
        )  # fmt: skip
        with layout.ledger.open("a") as file:
            file.write(entry.model_dump_json() + "\n")

    enter("queued")
    if fails == "queued":
        return
    write_json(folder.config, _config(seed, about["set"]))
    rng = np.random.default_rng([seed, list(ARMS).index(arm)])
    seed_effect = np.random.default_rng(seed).normal(0, 0.002)  # shared by the arms
    end = 1.172 + about.get("effect", 0.0) + seed_effect + rng.normal(0, 0.0006)
    num_steps = 1100 if fails else round(_CLOCK_S * 1000 / step_ms)
    if not about.get("like"):
        _write_events(layout, trained, num_steps, step_ms, end, about)
    if fails:
        launcher = (
            "E1121 04:41:09.970000 5951 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 2)"
        )
        log = ["training seed=1", f"step 1100 {HOSTILE}", "error: loss is not finite at step 1100", launcher, "=" * 60]
        write_text(folder.log, "\n".join(log) + "\n")
        reason = (
            f"loss is not finite at step 1100 {HOSTILE}" if fails != "killed" else "0.012 worse than int6 at step 1,000"
        )
        kind = {} if fails == "killed" else {"failure_kind": fails}
        enter("killed" if fails == "killed" else "failed", reason=reason, gpu_held_s=900.0, cost_usd=0.7, **kind)
        return
    gap = about.get("gap", 0.012) + rng.normal(0, 0.0003)
    record = result(
        arm, seed, end + gap, gap, sliding_bpb=end + gap - 0.03, eval_stride=64, raw_bpb=end + 0.002, steps=num_steps,
        step_ms=step_ms, train_s=_CLOCK_S, model_bytes=about.get("bytes", 15_300_000) + int(rng.integers(0, 40_000)),
        num_params=22_000_000, hardware="8 ranks on NVIDIA H100 80GB HBM3", node="node-7", wall_s=900.0, world_size=8,
        **({"qat_on_step": 5900, "qat_coverage": 1.0, "qat_is_live": True} if about.get("qat") else {}),
    ).model_copy(update={"trial_id": trial_id(arm, seed), "train_fingerprint": trained})  # fmt: skip
    write_text(folder.result, record.model_dump_json())
    write_text(folder.artifact, "packed")
    enter("finished", source="run", gpu_held_s=7200.0, cost_usd=5.38)


def _config(seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model": {"dim": 512}, "qat": {"enabled": False}, "quant": {"bits": {"mlp": 6}}, "seed": seed,
    }  # fmt: skip
    for key, value in changes.items():
        *path, last = key.split(".")
        inner = config
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return config


def _write_events(
    layout: RunLayout, trained: str, num_steps: int, step_ms: float, end: float, about: dict[str, Any]
) -> None:
    lines = [{"event": "training"}]
    for step in range(0, num_steps + 1, 250):
        bpb = end + 0.002 + 0.9 * math.exp(-step / 700) + 0.05 * (1 - step / num_steps)
        lines.append(
            {"event": "val", "step": step, "train_s": step * step_ms / 1000, "raw_bpb": bpb, "val_loss_nats": 2.0}
        )
    if about.get("qat"):
        lines.append({"event": "gate", "gate": "qat", "step": 5900, "train_s": 500.0, "lr_scale": 0.15})
    write_text(layout.trained(trained).events, "\n".join(map(json.dumps, lines)) + "\n")

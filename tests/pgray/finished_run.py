"""Makes run folders with finished trials for tests of planning: real artifacts of random weights, without training."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from pgray.store.ledger import Ledger
from trainer.config import Config
from trainer.model.shapes import parameter_shapes
from trainer.quant.artifact import byte_ledger, pack
from trainer.quant.export import store_weights
from trainer.records.files import write_json, write_text
from trainer.records.fingerprint import LAST_WEIGHTS, average_key, train_fingerprint, trial_id
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.records.results import AverageRecord, TrainingRecord, TrialResult
from trainer.run.bundle import code_bytes

Draw = Callable[[tuple[int, ...], torch.Generator], Tensor]


def gaussian(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def heavy_tailed(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Student's t with 4 degrees of freedom: a few large weights, as after much weight decay."""
    square = sum(torch.randn(shape, generator=generator).square() for _ in range(4))
    return torch.randn(shape, generator=generator) * (4 / square).sqrt()


def packed(config: Config, draw: Draw) -> tuple[int, list[Any]]:
    """Model bytes and byte ledger of a config whose matrices are drawn at random."""
    generator = torch.Generator().manual_seed(config.seed)
    weights = {
        name: draw(shape, generator) if len(shape) > 1 else torch.ones(shape)
        for name, shape in parameter_shapes(config).items()
    }
    stored = store_weights(weights, config.quant)
    return len(pack(stored, config)), byte_ledger(stored)


def training_record(fingerprint: str, average_keys: Collection[str], **fields: Any) -> TrainingRecord:
    """The record of a finished training run that kept these averages."""
    rest: dict[str, Any] = {
        "steps": 4, "train_s": 0.4, "step_ms": 100.0, "tokens": 1, "final_train_loss_nats": None, "qat_on_step": None,
        "qat_coverage": None, "qat_is_live": None, "num_params": 1, "peak_memory_mib": None, "world_size": 1,
        "hardware": "1 rank on a test", "node": "n", "torch_version": "0", "data_sha": "d", "tokenizer_sha": "t", "wall_s": 1.0,
    }  # fmt: skip
    averages = [AverageRecord(key=key) for key in sorted(average_keys)]
    return TrainingRecord(**{**rest, **fields, "train_fingerprint": fingerprint, "averages": averages})


def add_finished(
    layout: RunLayout,
    arm: str,
    config: Config,
    *,
    draw: Draw = heavy_tailed,
    step_ms: float = 100.0,
    gpus: int = 0,
    world_size: int = 1,
    wall_s: float = 20.0,
    sweep: str = "test",
    hardware: str = "1 rank on a test",
) -> TrialResult:
    """Put a finished trial into a run folder, as a job would have left it."""
    fingerprint = train_fingerprint(config, "d", "t", world_size, "cuda" if gpus else "cpu")
    name = trial_id(arm, config, fingerprint)
    model_bytes, tensors = packed(config, draw)
    steps = config.train.iterations
    common: dict[str, Any] = {
        "train_fingerprint": fingerprint, "steps": steps, "train_s": steps * step_ms / 1000, "step_ms": step_ms, "tokens": 1,
        "qat_on_step": None, "qat_coverage": None, "qat_is_live": None, "num_params": 1, "peak_memory_mib": None,
        "world_size": world_size, "hardware": hardware, "node": "n", "torch_version": "0", "git_sha": None, "data_sha": "d",
        "tokenizer_sha": "t",
    }  # fmt: skip
    result = TrialResult(
        trial_id=name, seed=config.seed, average="last", float_bpb=1.0, post_quant_bpb=1.0, quant_gap=0.0, sliding_bpb=None,
        ttt_bpb=None, val_loss_nats=1.0, raw_bpb=None, artifact_bytes=model_bytes + code_bytes(), model_bytes=model_bytes,
        code_bytes=code_bytes(), is_within_cap=True, entropy_bytes=sum(t.entropy_bytes for t in tensors), eval_s=1.0,
        export_s=1.0, wall_s=wall_s, scored_tokens=1, scored_bytes=1, eval_seq_len=1, eval_stride=None, tensors=tensors,
        **common,
    )  # fmt: skip
    key, trained = average_key(config), layout.trained(fingerprint)
    training = training_record(fingerprint, {LAST_WEIGHTS, key}, wall_s=common["train_s"] + 7.0, **common)
    write_json(trained.record, training.model_dump(mode="json"))
    for kept in (LAST_WEIGHTS, key):
        write_text(trained.weights(kept), "not weights")
    write_text(layout.trial(name).config, config.model_dump_json())
    write_json(layout.trial(name).result, result.model_dump(mode="json"))
    entry = LedgerEntry(
        at=0.0, sweep=sweep, arm=arm, seed=config.seed, trial_id=name, train_fingerprint=fingerprint, state="finished",
        job_id=f"{fingerprint}-0", gpu_held_s=gpus * 100.0,
    )  # fmt: skip
    Ledger(layout.ledger).append(entry)
    return result

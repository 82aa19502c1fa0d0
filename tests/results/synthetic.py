"""Writes run folders from the real records, as pgray and the trainer do."""

import time
from pathlib import Path
from typing import Any

from trainer.records.files import write_text
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.records.results import TrialResult

BASE: dict[str, Any] = {
    "average": "last",
    "sliding_bpb": None,
    "ttt_bpb": None,
    "val_loss_nats": 4.0,
    "raw_bpb": None,
    "model_bytes": 9_000_000,
    "code_bytes": 50_000,
    "entropy_bytes": 8_900_000.0,
    "steps": 300,
    "train_s": 50.0,
    "step_ms": 166.7,
    "tokens": 1_228_800,
    "eval_s": 3.0,
    "export_s": 1.0,
    "wall_s": 60.0,
    "qat_on_step": None,
    "qat_coverage": None,
    "qat_is_live": None,
    "num_params": 1_000_000,
    "peak_memory_mib": None,
    "world_size": 1,
    "hardware": "cpu x2",
    "node": "laptop",
    "torch_version": "2.13.0",
    "git_sha": "abc",
    "data_sha": "d" * 12,
    "tokenizer_sha": "t" * 12,
    "scored_tokens": 100_000,
    "scored_bytes": 240_000,
    "eval_seq_len": 256,
    "eval_stride": None,
}


def result(arm: str, seed: int, post_quant_bpb: float = 2.5, gap: float = 0.01, **changes: Any) -> TrialResult:
    values = BASE | changes
    artifact_bytes = values["model_bytes"] + values["code_bytes"]
    return TrialResult(
        trial_id=f"{arm}-s{seed}-0",
        train_fingerprint=f"fp{seed}",
        seed=seed,
        post_quant_bpb=post_quant_bpb,
        float_bpb=post_quant_bpb - gap,
        quant_gap=gap,
        artifact_bytes=artifact_bytes,
        is_within_cap=artifact_bytes <= 16_000_000,
        **values,
    )


class Run:
    """A run folder that grows entry by entry."""

    def __init__(self, root: Path, sweep_yaml: str = "name: bits\nquestion: Does it?\ncontrol: int8\n") -> None:
        self.layout = RunLayout(root)
        root.mkdir(parents=True, exist_ok=True)
        self.layout.ledger.touch()
        write_text(self.layout.sweep, sweep_yaml)

    def entry(self, arm: str, seed: int, state: str = "queued", trial_id: str | None = None, **fields: Any) -> str:
        trial_id = trial_id or f"{arm}-s{seed}-0"
        entry = LedgerEntry(
            at=time.time(),
            sweep="bits",
            arm=arm,
            seed=seed,
            trial_id=trial_id,
            train_fingerprint=f"fp{seed}",
            state=state,  # type: ignore[arg-type]
            **fields,
        )
        with self.layout.ledger.open("a") as file:
            file.write(entry.model_dump_json() + "\n")
        return trial_id

    def finish(self, arm: str, seed: int, post_quant_bpb: float = 2.5, gap: float = 0.01, **changes: Any) -> str:
        record = result(arm, seed, post_quant_bpb, gap, **changes)
        write_text(self.layout.trial(record.trial_id).result, record.model_dump_json(indent=1))
        return self.entry(arm, seed, "finished", source="run", gpu_held_s=0.0)

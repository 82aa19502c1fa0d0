"""Wrote result_v1.json and ledger_v1.jsonl at SCHEMA_VERSION 1. Kept to show what they are; do not run it at a later version.

A new version gets a script and files of its own; the old files stay, since people's run folders hold such records.
"""

from pathlib import Path

from trainer.records.ledger import LedgerEntry
from trainer.records.record import SCHEMA_VERSION
from trainer.records.results import TensorBytes, TrialResult

HERE = Path(__file__).parent

RESULT = TrialResult(
    trial_id="int4-mlp+qat-s42-0123456789",
    train_fingerprint="0123456789ab",
    seed=42,
    average="ema-1f0c22d94a6b",
    float_bpb=2.4125,
    post_quant_bpb=2.4375,
    quant_gap=0.025,
    sliding_bpb=2.375,
    ttt_bpb=None,
    val_loss_nats=4.1,
    raw_bpb=2.5,
    artifact_bytes=1_250_000,
    model_bytes=1_200_000,
    code_bytes=50_000,
    is_within_cap=True,
    entropy_bytes=1_190_000.5,
    steps=300,
    train_s=55.25,
    step_ms=184.2,
    tokens=1_228_800,
    eval_s=4.5,
    export_s=1.25,
    wall_s=70.0,
    qat_on_step=231,
    qat_coverage=1.0,
    qat_is_live=True,
    num_params=950_000,
    peak_memory_mib=None,
    world_size=1,
    hardware="cpu x2",
    node="laptop",
    torch_version="2.13.0+cpu",
    git_sha=None,
    data_sha="dddddddddddd",
    tokenizer_sha="tttttttttttt",
    scored_tokens=98_560,
    scored_bytes=236_544,
    eval_seq_len=256,
    eval_stride=128,
    tensors=[
        TensorBytes(
            name="mlp_up", tensor_class="mlp", stored_as="int", bits=4, num_elements=196_608, entropy_bytes=90_000.0
        )
    ],
    antilayer=[{"layer": 0.0, "bpb": 3.5}],
    notes=["EMA keeps 0.1 % of the initial weights"],
)
LEDGER = [
    LedgerEntry(
        at=1_700_000_000.0,
        sweep="quickstart",
        arm="int4-mlp+qat",
        seed=42,
        trial_id=RESULT.trial_id,
        train_fingerprint=RESULT.train_fingerprint,
        state="running",
        job_id="0123456789ab-0",
    ),
    LedgerEntry(
        at=1_700_000_070.0,
        sweep="quickstart",
        arm="int4-mlp+qat",
        seed=42,
        trial_id=RESULT.trial_id,
        train_fingerprint=RESULT.train_fingerprint,
        state="finished",
        attempt=1,
        job_id="0123456789ab-0",
        source="run",
        node="laptop",
        gpu_held_s=0.0,
    ),
]

if __name__ == "__main__":
    assert SCHEMA_VERSION == 1, (
        "this script wrote the files of version 1; write those of a new version with a new script"
    )
    (HERE / "result_v1.json").write_text(RESULT.model_dump_json(indent=1) + "\n")
    (HERE / "ledger_v1.jsonl").write_text("".join(entry.model_dump_json(exclude_none=True) + "\n" for entry in LEDGER))

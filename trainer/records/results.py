"""What a job writes down: results, failures and events. Torch-free, so that every reader can load it.

Units are in the names. Not measured = None, never 0. Change a field only with a SCHEMA_VERSION bump and a file in
`tests/compat/`.
"""

from typing import Literal

from pydantic import Field

from trainer.errors import FailureKind
from trainer.records.record import SCHEMA_VERSION, Record


class AverageRecord(Record):
    """One set of float weights kept by a training run."""

    key: str  # `last`, or `<kind>-<hash of its knobs>`
    snapshots: int | None = None  # how many sets of weights went in; None for an EMA
    updates: int | None = None  # EMA updates made
    initial_share: float | None = None  # weight of the initialization left in the average, 0..1
    never_began: bool = False  # nothing was averaged: these are the last weights


class TrainingRecord(Record):
    """A finished training run: `trained/<train_fingerprint>/training.json`."""

    schema_version: int = SCHEMA_VERSION
    train_fingerprint: str
    steps: int
    train_s: float  # training clock: compile, warm-up and validation excluded
    step_ms: float
    tokens: int
    final_train_loss_nats: float | None
    qat_on_step: int | None
    qat_coverage: float | None  # share of exported quantized elements that QAT touched; None with QAT off
    qat_is_live: bool | None  # measured at switch-on; None with QAT off
    qat_note: str | None = None
    recurrence_on_step: int | None = None  # partial recurrence: when its gate opened; None for other kinds
    averages: list[AverageRecord]
    num_params: int
    peak_memory_mib: float | None
    world_size: int
    hardware: str
    node: str
    torch_version: str
    data_sha: str
    tokenizer_sha: str
    wall_s: float
    git_sha: str | None = None  # of the code that trained; an export by later code says so
    code_sha: str | None = None  # as in TrialResult; from version 2
    node_tflops: float | None = None  # as in TrialResult; from version 2


class TensorBytes(Record):
    """One line of an artifact's byte ledger."""

    name: str
    tensor_class: str
    stored_as: Literal["int", "fp16", "fp32", "svd"]
    bits: int
    num_elements: int
    entropy_bytes: float  # order-0 entropy of the symbols plus stored floats


class TrialResult(Record):
    """A finished trial: `trials/<trial_id>/result.json`. Column meanings: `results/schema.py`."""

    schema_version: int = SCHEMA_VERSION
    trial_id: str
    train_fingerprint: str
    seed: int
    average: str
    float_bpb: float
    post_quant_bpb: float
    quant_gap: float
    sliding_bpb: float | None
    ttt_bpb: float | None
    val_loss_nats: float
    raw_bpb: float | None
    artifact_bytes: int
    model_bytes: int
    code_bytes: int
    is_within_cap: bool
    entropy_bytes: float
    steps: int
    train_s: float
    step_ms: float
    tokens: int
    eval_s: float
    export_s: float
    wall_s: float
    qat_on_step: int | None
    qat_coverage: float | None
    qat_is_live: bool | None
    num_params: int
    peak_memory_mib: float | None
    world_size: int
    hardware: str
    node: str
    torch_version: str
    git_sha: str | None
    data_sha: str
    tokenizer_sha: str
    scored_tokens: int
    scored_bytes: int
    eval_seq_len: int
    eval_stride: int | None
    tensors: list[TensorBytes] = Field(default_factory=list)
    antilayer: list[dict[str, float]] | None = None  # per layer: bpb with that layer silenced
    code_sha: str | None = None  # `bundle.code_sha` of the trainer that exported; from version 2
    node_tflops: float | None = None  # `hardware.probe_tflops` of the slowest rank before training; from version 2
    notes: list[str] = Field(default_factory=list)


class JobFailure(Record):
    """Why a job or one export stopped, as far as the trainer knows: `failure.json`."""

    kind: FailureKind
    reason: str  # one line
    trace: str = ""

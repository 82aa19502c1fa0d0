"""The records that a job writes: training runs, results and failures. Torch-free, so that every reader can load them.

Units are in the names. A value that was not measured is None, never 0. A changed field needs a new SCHEMA_VERSION and new
files in `tests/compat/`.
"""

from typing import Literal

from pydantic import Field

from trainer.errors import FailureKind
from trainer.records.record import SCHEMA_VERSION, Record


class AverageRecord(Record):
    """One set of float weights kept by a training run."""

    key: str  # `last`, or `<kind>-<hash of its settings>`
    snapshots: int | None = None  # number of averaged snapshots; None for an EMA
    updates: int | None = None  # number of EMA updates
    initial_share: float | None = None  # share of the initial weights in the average, 0..1
    never_began: bool = False  # nothing was averaged: these are the last weights


class TrainingFacts(Record):
    """The facts about a training run that its record and each of its trials' results hold under the same name."""

    train_fingerprint: str
    steps: int
    train_s: float  # training clock: without compilation, warm-up and validation
    step_ms: float
    tokens: int
    qat_on_step: int | None
    qat_coverage: float | None  # share of the quantized elements that QAT trained; None with QAT off
    qat_is_live: bool | None  # measured when QAT is switched on; None with QAT off
    num_params: int
    peak_memory_mib: float | None
    world_size: int
    hardware: str
    node: str
    torch_version: str
    data_sha: str
    tokenizer_sha: str
    node_tflops: float | None = None  # `hardware.probe_tflops` of the slowest rank before training; from version 2


class TrainingRecord(TrainingFacts):
    """A finished training run: `trained/<train_fingerprint>/training.json`."""

    schema_version: int = SCHEMA_VERSION
    final_train_loss_nats: float | None
    qat_note: str | None = None
    recurrence_on_step: int | None = None  # partial recurrence: the step at which its gate opened; None for other kinds
    averages: list[AverageRecord]
    wall_s: float
    git_sha: str | None = None  # of the code that trained; an export by other code adds a note to its result
    code_sha: str | None = None  # as in TrialResult; from version 2


class TensorBytes(Record):
    """One line of an artifact's byte ledger."""

    name: str
    tensor_class: str
    stored_as: Literal["int", "fp16", "fp32", "svd"]
    bits: int
    num_elements: int
    entropy_bytes: float  # order-0 entropy of the symbols plus stored floats


class TrialResult(TrainingFacts):
    """A finished trial: `trials/<trial_id>/result.json`. Column meanings: `results/schema.py`."""

    schema_version: int = SCHEMA_VERSION
    trial_id: str
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
    eval_s: float
    export_s: float
    wall_s: float
    git_sha: str | None
    scored_tokens: int
    scored_bytes: int
    eval_seq_len: int
    eval_stride: int | None
    tensors: list[TensorBytes] = Field(default_factory=list)
    antilayer: list[dict[str, float]] | None = None  # per layer: bpb with that layer silenced
    code_sha: str | None = None  # `bundle.code_sha` of the trainer that exported; from version 2
    notes: list[str] = Field(default_factory=list)


class JobFailure(Record):
    """Why a job or one export failed, if the trainer could tell: `failure.json`."""

    kind: FailureKind
    reason: str  # one line
    trace: str = ""

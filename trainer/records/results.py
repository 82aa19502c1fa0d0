"""The records that a job writes: training runs, results and failures. Torch-free, so that every reader can load them.

Units are in the names. A value that was not measured is None, never 0. A changed field needs a new SCHEMA_VERSION and new
files in `tests/compat/`. The facts about a metric stand on its field: see `Metric`.
"""

from functools import partial
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from trainer.errors import FailureKind
from trainer.records.metrics import Metric, metrics_of
from trainer.records.record import SCHEMA_VERSION, Record

_BPB = "bits per byte"
_score = partial(Metric, _BPB, spec=".4f", is_score=True)


class AverageRecord(Record):
    """One set of float weights kept by a training run."""

    key: str  # `last`, or `<kind>-<hash of its settings>`
    snapshots: int | None = None  # number of averaged snapshots; None for an EMA
    updates: int | None = None  # number of EMA updates
    initial_share: float | None = None  # share of the initial weights in the average, 0..1
    never_began: bool = False  # nothing was averaged: these are the last weights
    sha256: str | None = None  # of the file of weights; from version 3


class TrainingFacts(Record):
    """The facts about a training run that its record and each of its trials' results hold under the same name.

    The text below a field is its meaning in docs/columns.md.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    train_fingerprint: str
    """Identity of the training run; trials that share it share float weights."""
    steps: int
    """Optimizer steps taken."""
    train_s: Annotated[float, Metric("seconds")]
    """Training clock: compile, warm-up and validation excluded."""
    step_ms: Annotated[float, Metric("milliseconds")]
    """Training clock per optimizer step."""
    tokens: int
    """Training tokens, summed over all ranks."""
    qat_on_step: int | None
    """Step at which quantization-aware training switched on; null = never."""
    qat_coverage: Annotated[float | None, Metric("share 0..1", is_lower_better=False)]
    """Share of the exported quantized elements that QAT touched; null with QAT off."""
    qat_is_live: bool | None
    """Measured: with QAT on, the model computes with the exporter's values."""
    num_params: Annotated[int, Metric()]
    """Parameters of the model."""
    peak_memory_mib: Annotated[float | None, Metric("MiB")]
    """Peak device memory of one rank; null on CPU."""
    world_size: int
    """Ranks over all nodes."""
    hardware: str
    """Device model and count."""
    node: str
    """Host name of the first node."""
    torch_version: str
    """torch's version."""
    data_sha: str
    """Content of the training and validation shards."""
    tokenizer_sha: str
    """Content of the tokenizer."""
    node_tflops: Annotated[float | None, Metric("TFLOP/s", is_lower_better=False)] = None  # from version 2
    """Speed of a matrix product before training, on the slowest rank: bf16 on GPU, fp32 on CPU."""
    train_limit_s: Annotated[float | None, Metric("seconds", is_lower_better=False)] = None  # from version 3
    """Limit of the training clock, `train.wallclock_s`."""


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

    def average(self, key: str) -> AverageRecord:
        """Return the facts about one of the averages. Raises StopIteration: it was not kept."""
        return next(average for average in self.averages if average.key == key)


class TensorBytes(Record):
    """One line of an artifact's byte ledger."""

    name: str
    tensor_class: str
    stored_as: Literal["int", "fp16", "fp32", "svd"]
    bits: int
    num_elements: int
    entropy_bytes: float  # order-0 entropy of the symbols plus stored floats


class TrialResult(TrainingFacts):
    """A finished trial: `trials/<trial_id>/result.json`."""

    schema_version: int = SCHEMA_VERSION
    """Version of the record that the row was read from."""
    trial_id: str
    """Arm, seed and a hash of everything that can change the numbers."""
    seed: int
    """Seed of initialization and noise; the order of the data is the same for every seed."""
    average: str
    """Exported average: `last`, or its kind and a hash of its settings."""
    initial_share: Annotated[float | None, Metric("share 0..1")] = None  # from version 3
    """Share of the initial weights in the exported average; null if it is not an EMA."""
    never_began: bool | None = None  # from version 3
    """The exported average never began, so the last weights were exported."""
    float_bpb: Annotated[float, Metric(_BPB, "float bpb", ".4f")]
    """After averaging, before quantization; non-sliding."""
    post_quant_bpb: Annotated[float, _score("post-quant bpb")]
    """From the unpacked artifact; non-sliding."""
    quant_gap: Annotated[float, Metric(_BPB, "quant gap", "+.4f")]
    """post_quant_bpb - float_bpb: the cost of quantization."""
    sliding_bpb: Annotated[float | None, _score("sliding bpb", needs="eval.stride", evaluated_with=("eval_stride",))]
    """From the unpacked artifact; sliding window, each target scored once."""
    ttt_bpb: Annotated[float | None, _score("TTT bpb", needs="eval.ttt.enabled", evaluated_with=("eval_stride",))]
    """From the unpacked artifact; score-first test-time training."""
    val_loss_nats: Annotated[float, Metric("nats per token")]
    """Loss behind post_quant_bpb."""
    raw_bpb: Annotated[float | None, Metric(_BPB)]
    """Last weights: no averaging, no quantization; non-sliding."""
    artifact_bytes: Annotated[int, Metric("bytes")]
    """model_bytes + code_bytes: the size that the cap of 16,000,000 limits."""
    model_bytes: Annotated[int, Metric("bytes")]
    """Packed, compressed weights."""
    code_bytes: Annotated[int, Metric("bytes")]
    """The train_gpt.py that repeats the trial: compressed trainer, plain config."""
    is_within_cap: bool
    """artifact_bytes <= 16,000,000."""
    entropy_bytes: Annotated[float, Metric("bytes")]
    """Order-0 entropy of the stored symbols plus stored floats: the reference for judging a codec."""
    eval_s: Annotated[float, Metric("seconds")]
    """Evaluations of the artifact."""
    export_s: Annotated[float, Metric("seconds")]
    """Average, quantize, pack, unpack."""
    wall_s: Annotated[float, Metric("seconds")]
    """Wall time of the trial, its share of a shared training run included."""
    git_sha: str | None
    """Commit of the code; provenance.json records whether its files had uncommitted changes."""
    scored_tokens: Annotated[int, Metric("tokens", is_lower_better=False)]
    """Targets scored by post_quant_bpb; rows that differ cannot be compared."""
    scored_bytes: Annotated[int, Metric("bytes", is_lower_better=False)]
    """Bytes of text that the scored tokens encode: the denominator of every bpb."""
    eval_seq_len: Annotated[int, Metric("tokens", is_lower_better=False)]
    """Context length in evaluation."""
    eval_stride: Annotated[int | None, Metric("tokens", is_lower_better=False)]
    """Stride of the sliding window; null where it was skipped."""
    tensors: list[TensorBytes] = Field(default_factory=list)
    antilayer: list[dict[str, float]] | None = None  # per layer: bpb with that layer silenced
    code_sha: str | None = None  # `bundle.code_sha` of the trainer that exported; from version 2
    """Hash of the trainer's program without comments: rows that differ were made by different code."""
    artifact_sha256: str | None = None  # from version 3
    """Hash of the artifact that was measured; null in records of earlier versions, where only the size is checked."""
    notes: list[str] = Field(default_factory=list)


METRICS: dict[str, Metric] = metrics_of(TrialResult)
"""The numeric columns of a TrialResult, in order."""
LOWER_IS_BETTER = tuple(name for name, metric in METRICS.items() if metric.is_lower_better)
LOSSES = tuple(name for name, metric in METRICS.items() if metric.is_loss)
"""The columns whose differences convert into nats per token."""
LISTED = tuple(name for name, metric in METRICS.items() if metric.label)
"""The columns that lists of results show."""
SCORES = tuple(name for name, metric in reversed(METRICS.items()) if metric.is_score)
"""What a submission may claim, the best first: a submission claims the first that all its seeds have."""
HEADLINES = ("sliding_bpb", "post_quant_bpb")
"""What arms are compared by unless a metric is named: the first that was measured."""


class JobFailure(Record):
    """Why a job or one export failed, if the trainer could tell: `failure.json`."""

    kind: FailureKind
    reason: str  # one line
    trace: str = ""

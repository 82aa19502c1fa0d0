"""What a job writes down: results, failures and events. Torch-free, so that every reader can load it.

Units are in the names. Not measured = None, never 0. Change a field only with a SCHEMA_VERSION bump and a file in
`tests/compat/`.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import FailureKind

SCHEMA_VERSION = 2


class Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)  # newer files load in older readers


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


TrialState = Literal["queued", "running", "finished", "failed", "killed", "invalid", "lost"]


class LedgerEntry(Record):
    """One line of `ledger.jsonl`: trial `trial_id` came into `state`. The last line of a trial is its state.

    The order of first appearance is the order of the table's rows. `gpu_held_s` and `cost_usd` are the job's, divided
    equally among its trials so that sums are right.
    """

    at: float  # Unix time, seconds
    sweep: str
    arm: str
    seed: int
    trial_id: str
    train_fingerprint: str
    state: TrialState
    attempt: int = 0
    job_id: str | None = None
    failure_kind: FailureKind | None = None
    reason: str | None = None
    source: str | None = None  # where the numbers came from: `run`, `recovered`, or a file and line of a foreign log
    node: str | None = None
    gpu_held_s: float | None = None
    cost_usd: float | None = None
    changes: dict[str, Any] | None = None  # what the arm sets, dotted; on the first entry of a search's trial

    def moved_to(self, state: TrialState, **fields: Any) -> "LedgerEntry":
        """The next entry of the same trial and attempt, with nothing of what was said about the state before."""
        keep = {"sweep", "arm", "seed", "trial_id", "train_fingerprint", "attempt"}
        return LedgerEntry(at=time.time(), state=state, **self.model_dump(include=keep), **fields)


def read_ledger(path: Path) -> tuple[list[LedgerEntry], list[str]]:
    """Every whole entry in the order written, and a sentence for each line left out. Both empty without a file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], []
    entries, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entries.append(LedgerEntry.model_validate_json(line))
        except ValidationError:
            is_cut = number == len(lines)  # whole lines end with a newline
            what = "cut off in the middle, as by a kill" if is_cut else "not a ledger entry"
            problems.append(f"{path}: line {number}: {what}; left out")
    return entries, problems


def last_entries(entries: Iterable[LedgerEntry]) -> dict[str, LedgerEntry]:
    """Trial id -> its last entry, in the order in which the trials first appeared."""
    return {entry.trial_id: entry for entry in entries}  # a key keeps its first position


def newest_trials(entries: Iterable[LedgerEntry]) -> dict[tuple[str, int], str]:
    """(arm, seed) -> the trial id that the ledger mentions last.

    A sweep that was edited and run again leaves trials of the old configuration; this one was asked for last.
    """
    return {(entry.arm, entry.seed): entry.trial_id for entry in entries}


class EventLog:
    """Append-only JSON lines with an `event` field and a wall time, flushed line by line, and echoed for people.

    Args:
        path: where to; None (ranks other than 0) writes and prints nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, event: str, **fields: Any) -> None:
        if self.path is None:
            return
        line = json.dumps({"event": event, "at": round(time.time(), 3), **fields}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        shown = " ".join(f"{key}={_short(value)}" for key, value in fields.items() if value is not None)
        print(f"{event} {shown}", flush=True)


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole lines of an event log; a line cut off by a kill is left out. [] where there is no file."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events

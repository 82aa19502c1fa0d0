"""Every column of the trial table: name, dtype, unit, meaning. The one list that frames and docs are made from.

All dtypes are pandas' nullable ones, so that "not measured" is null and cannot be mistaken for 0, in an integer or a
boolean column too. `python -m results.schema` prints the columns as Markdown; `docs/columns.md` is that text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Dtype = Literal["string", "Int64", "Float64", "boolean"]
Row = dict[str, Any]
"""One row in plain Python values: column name -> value, None for null."""


@dataclass(frozen=True)
class Column:
    """`unit` is empty where a column has none. `in_contract`: promised to outsiders by name and order."""

    name: str
    dtype: Dtype
    unit: str
    meaning: str
    in_contract: bool = True


COLUMNS: tuple[Column, ...] = (
    Column("sweep", "string", "", "Name of the sweep the trial was asked for in."),
    Column("arm", "string", "", "Named configuration within the sweep."),
    Column("seed", "Int64", "", "Seed of initialization and noise; the order of the data is the same for every seed."),
    Column("trial_id", "string", "", "Arm, seed and a hash of everything that can change the numbers."),
    Column(
        "train_fingerprint", "string", "", "Identity of the training run; trials that share it share float weights."
    ),
    Column("status", "string", "", "queued, running, finished, failed, killed, invalid or lost."),
    Column(
        "failure_kind",
        "string",
        "",
        "user_error, data_error, oom, diverged, timeout, infra, preempted or lost; else null.",
    ),
    Column("reason", "string", "", "Why there is no number, or why one is to be read with care; else null."),
    Column(
        "source", "string", "", "Where the numbers came from: `run`, `recovered`, or file and line of a foreign log."
    ),
    Column("float_bpb", "Float64", "bits per byte", "After averaging, before quantization; non-sliding."),
    Column("post_quant_bpb", "Float64", "bits per byte", "From the unpacked artifact; non-sliding."),
    Column("quant_gap", "Float64", "bits per byte", "post_quant_bpb - float_bpb: what quantization cost."),
    Column(
        "sliding_bpb",
        "Float64",
        "bits per byte",
        "From the unpacked artifact; sliding window, each target scored once.",
    ),
    Column("ttt_bpb", "Float64", "bits per byte", "From the unpacked artifact; score-first test-time training."),
    Column("val_loss_nats", "Float64", "nats per token", "Loss behind post_quant_bpb."),
    Column("raw_bpb", "Float64", "bits per byte", "Last weights: no averaging, no quantization; non-sliding."),
    Column("artifact_bytes", "Int64", "bytes", "model_bytes + code_bytes: what the cap of 16,000,000 counts."),
    Column("model_bytes", "Int64", "bytes", "Packed, compressed weights."),
    Column(
        "code_bytes", "Int64", "bytes", "The train_gpt.py that repeats the trial: compressed trainer, plain config."
    ),
    Column("is_within_cap", "boolean", "", "artifact_bytes <= 16,000,000."),
    Column(
        "entropy_bytes",
        "Float64",
        "bytes",
        "Order-0 entropy of the stored symbols plus stored floats: a codec's yardstick.",
    ),
    Column("steps", "Int64", "", "Optimizer steps taken."),
    Column("train_s", "Float64", "seconds", "Training clock: compile, warm-up and validation excluded."),
    Column("step_ms", "Float64", "milliseconds", "Training clock per optimizer step."),
    Column("tokens", "Int64", "", "Tokens trained on, all ranks together."),
    Column("eval_s", "Float64", "seconds", "Evaluations of the artifact."),
    Column("export_s", "Float64", "seconds", "Average, quantize, pack, unpack."),
    Column("wall_s", "Float64", "seconds", "Wall time of the trial, its share of a shared training run included."),
    Column(
        "gpu_held_s",
        "Float64",
        "GPU seconds",
        "GPUs x time held by its jobs, failed attempts included; a job's time is divided equally among its trials.",
    ),
    Column("cost_usd", "Float64", "US dollars", "gpu_held_s at the sweep's price; null without a price."),
    Column("qat_on_step", "Int64", "", "Step at which quantization-aware training switched on; null = never."),
    Column("qat_coverage", "Float64", "share 0..1", "Exported quantized elements that QAT touched; null with QAT off."),
    Column("qat_is_live", "boolean", "", "Measured: with QAT on, the model computes with the exporter's values."),
    Column("num_params", "Int64", "", "Parameters of the model."),
    Column("peak_memory_mib", "Float64", "MiB", "Peak device memory of one rank; null on CPU."),
    Column("world_size", "Int64", "", "DistContext over all nodes."),
    Column("hardware", "string", "", "Device model and count."),
    Column("node", "string", "", "Host name of the first node."),
    Column("torch_version", "string", "", "torch's version."),
    Column(
        "git_sha", "string", "", "Commit of the code; provenance.json says whether its files had uncommitted changes."
    ),
    Column("data_sha", "string", "", "Content of the training and validation shards."),
    Column("tokenizer_sha", "string", "", "Content of the tokenizer."),
    Column("schema_version", "Int64", "", "Version of the record that the row was read from."),
    Column("average", "string", "", "Which average was exported: `last`, or kind and hash of its knobs.", False),
    Column(
        "scored_tokens",
        "Int64",
        "tokens",
        "Targets scored by post_quant_bpb; rows that differ cannot be compared.",
        False,
    ),
    Column("scored_bytes", "Int64", "bytes", "Bytes those targets stand for: the denominator of every bpb.", False),
    Column("eval_seq_len", "Int64", "tokens", "Context length in evaluation.", False),
    Column("eval_stride", "Int64", "tokens", "Stride of the sliding window; null where it was skipped.", False),
    Column(
        "code_sha",
        "string",
        "",
        "The trainer's program, comments apart: rows that differ were made by different code.",
        False,
    ),
    Column(
        "node_tflops",
        "Float64",
        "TFLOP/s",
        "Matrix product before training, the slowest rank: bf16 on GPU, fp32 on CPU.",
        False,
    ),
    Column("is_current", "boolean", "", "False where the sweep has since given this arm another configuration.", False),
    Column("notes", "string", "", "Remarks of the trainer about this trial, joined by `; `.", False),
)

NAMES: tuple[str, ...] = tuple(column.name for column in COLUMNS)
IN_NATS = ("float_bpb", "post_quant_bpb", "sliding_bpb", "ttt_bpb", "raw_bpb", "quant_gap", "val_loss_nats")
"""Metrics whose differences are differences of loss, so that the challenge's rule can be applied to them."""


def typed_frame(rows: Iterable[Mapping[str, Any]], dtypes: Mapping[str, Dtype]) -> "pd.DataFrame":
    """A DataFrame of exactly these columns, in order and typed; a key that a row lacks, or None, is null.

    Raises:
        TypeError, ValueError: a value does not fit its column's dtype.
    """
    import pandas as pd

    cells = [[row.get(name) for name in dtypes] for row in rows]
    return pd.DataFrame(cells, columns=list(dtypes), dtype=object).astype(dict(dtypes))


def frame(rows: Iterable[Mapping[str, Any]]) -> "pd.DataFrame":
    """`typed_frame` with the columns above; keys that are no column are ignored."""
    return typed_frame(rows, {column.name: column.dtype for column in COLUMNS})


def records(rows: "pd.DataFrame") -> list[Row]:
    """The rows as dictionaries of plain Python values in which every kind of null is None."""
    null: Any = None  # which the stubs do not know as an na_value
    columns = [map(_plain, rows[name].to_numpy(dtype=object, na_value=null)) for name in rows]
    names = [str(name) for name in rows]
    return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def as_markdown() -> str:
    """The text of docs/columns.md."""
    lines = [
        "# Columns of the trial table",
        "",
        "<!-- Generated from results/schema.py by `python docs/generate.py`. Do not edit. -->",
        "",
        "One row per trial, in `table.csv`, `table.parquet`, `pgray table --format json` and `results.load`.",
        "Not measured = null, never 0. Columns marked * are extras that outsiders should not rely on.",
        "",
        "| column | dtype | unit | meaning |",
        "|---|---|---|---|",
    ]
    for c in COLUMNS:
        lines.append(f"| `{c.name}`{'' if c.in_contract else ' *'} | {c.dtype} | {c.unit} | {c.meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")

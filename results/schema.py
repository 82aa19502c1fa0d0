"""The columns of the trial table: name, dtype, unit, meaning. Frames and docs/columns.md are made from this list.

Columns of a result come from the fields of `TrialResult`. All dtypes are pandas' nullable ones: a value that was not
measured is null in an integer or boolean column too. `python -m results.schema` prints the columns as Markdown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trainer.records.metrics import column_types
from trainer.records.results import METRICS, SCORES, TrialResult

if TYPE_CHECKING:
    import pandas as pd

Dtype = Literal["string", "Int64", "Float64", "boolean"]
Row = dict[str, Any]
"""One row in plain Python values: column name -> value, None for null."""


@dataclass(frozen=True)
class Column:
    """One column. unit: empty without one. in_contract: promised to outsiders by name and order."""

    name: str
    dtype: Dtype
    unit: str
    meaning: str
    in_contract: bool


_PROMISED = (
    "sweep", "arm", "seed", "trial_id", "train_fingerprint", "status", "failure_kind", "reason", "source",
    "float_bpb", "post_quant_bpb", "quant_gap", "sliding_bpb", "ttt_bpb", "val_loss_nats", "raw_bpb",
    "artifact_bytes", "model_bytes", "code_bytes", "is_within_cap", "entropy_bytes", "steps", "train_s", "step_ms",
    "tokens", "eval_s", "export_s", "wall_s", "gpu_held_s", "cost_usd", "qat_on_step", "qat_coverage", "qat_is_live",
    "num_params", "peak_memory_mib", "world_size", "hardware", "node", "torch_version", "git_sha", "data_sha",
    "tokenizer_sha", "schema_version",
)  # fmt: skip
"""The columns that outsiders rely on, in this order."""
_DTYPES: dict[type, Dtype] = {str: "string", int: "Int64", float: "Float64", bool: "boolean"}
_OF_RUN: tuple[tuple[str, Dtype, str, str], ...] = (
    # columns that no result holds: from the ledger, or from the reader of the run folder
    ("sweep", "string", "", "Name of the sweep that the trial belongs to."),
    ("arm", "string", "", "Named configuration within the sweep."),
    ("status", "string", "", "queued, running, finished, failed, killed, invalid or lost."),
    (
        "failure_kind", "string", "",
        "user_error, data_error, oom, diverged, timeout, infra, preempted or lost; else null.",
    ),
    ("reason", "string", "", "Why the numbers are missing, or why to read them with care; else null."),
    ("source", "string", "", "Origin of the numbers: `run`, `recovered`, or file and line of a foreign log."),
    (
        "gpu_held_s", "Float64", "GPU seconds",
        "GPUs x time held by its jobs, failed attempts included; a job's time is divided equally among its trials.",
    ),
    ("cost_usd", "Float64", "US dollars", "gpu_held_s at the sweep's price; null without a price."),
    (
        "bytes_per_token", "Float64", "bytes",
        "Bytes of text per scored token, from the loss and bpb of a score: rows that differ have another tokenizer or data.",
    ),
    (
        "other_bpb", "Float64", "bits per byte",
        "Imported rows: the last score with a mixed-in n-gram model, validation training, unquantized TTT or the like.",
    ),
    ("other_label", "string", "", "Imported rows: what other_bpb is, by the label of its line."),
    (
        "config_sha", "string", "",
        "The arm's configuration without the seed: rows of one arm that differ have different configurations.",
    ),
    ("is_current", "boolean", "", "False if the sweep has since given this arm another configuration."),
    ("notes", "string", "", "Remarks of the trainer about this trial, joined by `; `."),
)  # fmt: skip


def _columns() -> tuple[Column, ...]:
    """Return the promised columns in their order, then every other field of a result, then the rest of `_OF_RUN`."""
    found = {
        name: Column(
            name,
            _DTYPES[kind],
            METRICS[name].unit if name in METRICS else "",
            TrialResult.model_fields[name].description or "",
            name in _PROMISED,
        )
        for name, kind in column_types(TrialResult).items()
    } | {column[0]: Column(*column, column[0] in _PROMISED) for column in _OF_RUN}
    return tuple(found[name] for name in dict.fromkeys([*_PROMISED, *found]))


COLUMNS: tuple[Column, ...] = _columns()
NAMES: tuple[str, ...] = tuple(column.name for column in COLUMNS)


def typed_frame(rows: Iterable[Mapping[str, Any]], dtypes: Mapping[str, Dtype]) -> "pd.DataFrame":
    """Return a DataFrame of exactly these columns, in order and typed; a missing key and None are null.

    Raises:
        TypeError, ValueError: a value does not fit its column's dtype.
    """
    import pandas as pd

    cells = [[row.get(name) for name in dtypes] for row in rows]
    return pd.DataFrame(cells, columns=list(dtypes), dtype=object).astype(dict(dtypes))


def frame(rows: Iterable[Mapping[str, Any]]) -> "pd.DataFrame":
    """Return `typed_frame` with the columns of the trial table; other keys are ignored."""
    return typed_frame(rows, {column.name: column.dtype for column in COLUMNS})


def records(rows: "pd.DataFrame") -> list[Row]:
    """Return the rows as dictionaries of plain Python values in which every kind of null is None."""
    null: Any = None  # the stubs do not accept None as na_value
    columns = {str(name): rows[name].to_numpy(dtype=object, na_value=null) for name in rows}
    plain = [[x.item() if hasattr(x, "item") else x for x in values] for values in columns.values()]
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*plain, strict=True)]


def listed_scores(trials: "pd.DataFrame") -> list[str]:
    """Return float_bpb and the scores to list for these trials; a score that none of them has is left out."""
    is_listed = (n for n in reversed(SCORES) if not METRICS[n].needs or trials[n].notna().any())
    return ["float_bpb", *is_listed]


def as_markdown() -> str:
    """Return the text of docs/columns.md."""
    lines = [
        "# Columns of the trial table",
        "",
        "<!-- Generated from results/schema.py by `python docs/generate.py`. Do not edit. -->",
        "",
        "One row per trial, in `table.csv`, `table.parquet`, `pgray table --format json` and `results.load`.",
        "In `table.csv`, a text that begins with =, +, - or @ has an apostrophe before it, so that no spreadsheet runs it.",
        "Not measured = null, never 0. Columns marked * are extras that outsiders should not rely on.",
        "",
        "| column | dtype | unit | meaning |",
        "|---|---|---|---|",
        *(f"| `{c.name}`{'' if c.in_contract else ' *'} | {c.dtype} | {c.unit} | {c.meaning} |" for c in COLUMNS),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")

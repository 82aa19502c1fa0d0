"""The table of a run as text and files: Markdown and LaTeX with a row per arm, CSV, JSON and Parquet with a row per trial.

The formats with a row per trial have exactly the columns of `results.schema`. For the terminal see
`results/present/terminal.py`.
"""

import io
import json
import re
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from results.present.column_layout import PAGE_WIDTH, TextColumn, fit_columns, markdown_width
from results.present.table_model import ArmTable, RunTable, build_table
from results.schema import listed_scores, records
from trainer.errors import InputError
from trainer.records.files import write_bytes, write_text
from trainer.records.layout import RunLayout

FORMATS = ("md", "csv", "json", "latex", "parquet")
_ANY_WIDTH = 10**6


def write_all(run_root: str | Path) -> None:
    """Rewrite table.md, table.csv and table.parquet of a run. Each is replaced atomically."""
    layout = RunLayout(Path(run_root))
    table = build_table(layout.root)
    write_text(layout.table("md"), _markdown(table, PAGE_WIDTH))
    write_text(layout.table("csv"), _csv(table.trials))
    write_bytes(layout.table("parquet"), _parquet(table.trials))


def render(run_root: str | Path, fmt: str, control: str | None = None, *, wide: bool = False) -> str:
    """Return the table of a run as text.

    Args:
        run_root: the run folder.
        fmt: md, latex: tables of arms; md also lists the trials. csv, json: a row per trial with the columns of
            `results.schema`; null is an empty field in csv.
        control: the arm to compare with; None: that of sweep.yaml, else the first arm.
        wide: hide no columns of md and latex.
    Raises:
        InputError: no run there, `control` is not among its arms, or no such format.
    """
    table = build_table(run_root, control)
    width = _ANY_WIDTH if wide else PAGE_WIDTH
    if fmt == "md":
        return _markdown(table, width)
    if fmt == "latex":
        return _latex(table, width)
    if fmt == "csv":
        return _csv(table.trials)
    if fmt == "json":
        return json.dumps(records(table.trials), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    raise InputError("--format", "format", fmt, f"use one of {', '.join(FORMATS)}")


def render_parquet(run_root: str | Path, control: str | None = None) -> bytes:
    """Return the trials of a run as a Parquet file. Args and Raises as `render`."""
    return _parquet(build_table(run_root, control).trials)


def overview(run_root: str | Path, control: str | None = None) -> dict[str, object]:
    """Return arms and trials of a run in JSON types, unrounded: the content of `pgray table --json`."""
    table = build_table(run_root, control)
    return {
        "sweep": table.sweep,
        "question": table.question,
        "control": table.control,
        "metric": table.metric,
        "arms": records(table.ablation),
        "verdicts": [arm.sentence for arm in table.arms],
        "trials": records(table.trials),
        "remarks": table.remarks,
    }


def _markdown(table: RunTable, width: int) -> str:
    blocks = [f"# {table.sweep}"]
    if table.question:
        blocks.append(_escape(table.question))
    if not table.arms:
        return "\n\n".join([*blocks, "No trials yet."]) + "\n"
    comparison, measurements = table.tables
    blocks += _markdown_table(comparison, width)
    if table.footnotes:
        blocks.append("\n".join(f"- [{i}] {_escape(note)}" for i, note in enumerate(table.footnotes, 1)))
    blocks += _markdown_table(measurements, width)
    if table.lost:
        lines = [(_escape(t.arm), str(t.seed), _escape(t.outcome), _escape(t.reason)) for t in table.lost]
        heading = ["arm", "seed", "status", "reason"]
        blocks += ["## Trials without a result", tabulate(lines, heading, "pipe", disable_numparse=True)]
    if table.pending:
        blocks.append(f"Pending: {_escape(table.pending)}.")
    blocks += ["## Trials", _trials(table.trials)]
    if table.remarks:
        blocks += ["## Remarks", "\n".join(f"- {_escape(remark)}" for remark in table.remarks)]
    return "\n\n".join(blocks) + "\n"


def _markdown_table(table: ArmTable, width: int) -> list[str]:
    columns, hidden = fit_columns(table.columns, table.hide_steps, width, markdown_width)
    cells = {key: [_escape(text) for text in column.texts()] for key, column in columns.items()}
    blocks = [f"{table.title[0].upper()}{table.title[1:]}:", _tabulated(cells, columns, "pipe")]
    return [*blocks, f"Hidden at this width: {', '.join(hidden)} (use --wide)."] if hidden else blocks


def _tabulated(cells: dict[str, list[str]], columns: dict[str, TextColumn], fmt: str) -> str:
    heading = [column.heading_text for column in columns.values()]
    align = ["left" if key == "arm" else "right" for key in columns]
    lines = list(zip(*cells.values(), strict=True))
    return str(tabulate(lines, heading, fmt, disable_numparse=True, colalign=align))


def _trials(trials: pd.DataFrame) -> str:
    columns = ["arm", "seed", "status", *listed_scores(trials), "artifact_bytes", "steps"]
    lines = [[_escape(row["arm"]), *list(row.values())[1:]] for row in records(trials[columns])]
    align = ["left" if name in ("arm", "status") else "right" for name in columns]
    return str(tabulate(lines, columns, "pipe", floatfmt=".6f", missingval="", disable_numparse=[0], colalign=align))


def _latex(table: RunTable, width: int) -> str:
    """Return booktabs tabulars: two of the arms, one of the footnotes."""
    parts = ["% needs \\usepackage{booktabs}"]
    for i, arm_table in enumerate(table.tables):
        columns, _ = fit_columns(arm_table.columns, arm_table.hide_steps, width, markdown_width)
        cells = {key: [" ".join(text.split()) for text in column.texts()] for key, column in columns.items()}
        parts += [f"% {arm_table.title}", _tabulated(cells, columns, "latex_booktabs")]
        if i == 0 and table.footnotes:
            notes = [(f"[{number}]", note) for number, note in enumerate(table.footnotes, 1)]
            parts.append(str(tabulate(notes, tablefmt="latex_booktabs", disable_numparse=True)))
    body = re.sub(" {2,}", " ", "\n".join(parts))
    for sign, command in (("±", r"$\pm$"), ("Δ", r"$\Delta$"), ("×", r"$\times$"), ("–", "--"), ("≥", r"$\ge$")):
        body = body.replace(sign, command)
    return f"{body}\n"


def _csv(trials: pd.DataFrame) -> str:
    return trials.to_csv(index=False, lineterminator="\n")


def _parquet(trials: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    trials.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")

"""The table of a run as files and text: Markdown and LaTeX per arm, CSV, JSON and Parquet per trial.

People read arms, programs read trials: the per-trial formats hold exactly the columns of `results.schema`. The same
content for a terminal is `results/present/terminal.py`.
"""

import io
import json
import re
from pathlib import Path
from typing import Literal, overload

import pandas as pd
from tabulate import tabulate

from results.present.column_layout import WIDTH, Column, fit, flat_width
from results.present.table_model import Block, View, view_run
from results.present.terminal import print_rich as print_rich
from results.schema import listed_scores, records
from trainer.errors import InputError
from trainer.records.files import write_bytes, write_text
from trainer.records.layout import RunLayout

FORMATS = ("md", "csv", "json", "latex", "parquet")


def write_all(run_root: str | Path) -> None:
    """Rewrite table.md, table.csv and table.parquet of a run, each whole or not at all."""
    layout = RunLayout(Path(run_root))
    view = view_run(layout.root)
    write_text(layout.table("md"), _markdown(view))
    write_text(layout.table("csv"), _csv(view.trials))
    write_bytes(layout.table("parquet"), _parquet(view.trials))


@overload
def render(run_root: str | Path, fmt: Literal["md", "csv", "json", "latex"], control: str | None = None) -> str: ...
@overload
def render(run_root: str | Path, fmt: Literal["parquet"], control: str | None = None) -> bytes: ...
@overload
def render(run_root: str | Path, fmt: str, control: str | None = None) -> str | bytes: ...
def render(run_root: str | Path, fmt: str, control: str | None = None) -> str | bytes:
    """The table of a run in one of `FORMATS`.

    Args:
        run_root: the run folder.
        fmt: md and latex: a row per arm against the control; md also what did not finish, the verdicts and the trials.
            csv, json, parquet: a row per trial with the columns of `results.schema`; null is an empty field in csv.
        control: the arm to compare with; None: that of sweep.yaml, else the first arm.
    Returns:
        Text ending in a newline; for parquet the bytes of a file.
    Raises:
        InputError: no run there, `control` is not among its arms, or no such format.
    """
    view = view_run(run_root, control)
    if fmt == "md":
        return _markdown(view)
    if fmt == "latex":
        return _latex(view)
    if fmt == "csv":
        return _csv(view.trials)
    if fmt == "json":
        return json.dumps(records(view.trials), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if fmt == "parquet":
        return _parquet(view.trials)
    raise InputError("--format", "format", fmt, f"use one of {', '.join(FORMATS)}")


def overview(run_root: str | Path, control: str | None = None) -> dict[str, object]:
    """Arms and trials of a run in JSON types, for `pgray table --json`: what the terminal shows, unrounded."""
    view = view_run(run_root, control)
    return {
        "sweep": view.sweep,
        "question": view.question,
        "control": view.control,
        "metric": view.metric,
        "arms": records(view.ablation),
        "verdicts": [arm.sentence for arm in view.arms],
        "trials": records(view.trials),
        "remarks": view.remarks,
    }


def _markdown(view: View) -> str:
    blocks = [f"# {view.sweep}"]
    if view.question:
        blocks.append(_escape(view.question))
    if not view.arms:
        return "\n\n".join([*blocks, "No trials yet."]) + "\n"
    compared, described = view.blocks
    blocks += _markdown_block(compared)
    blocks += (
        ["\n".join(f"- [{i}] {_escape(note)}" for i, note in enumerate(view.footnotes, 1))] if view.footnotes else []
    )
    blocks += _markdown_block(described)
    if view.unfinished:
        failed = [[_escape(text) for text in line] for line in view.unfinished]
        table = tabulate(failed, ["arm", "seed", "status", "reason"], "pipe", disable_numparse=True)
        blocks += ["## Without a number", table]
    if view.pending:
        blocks.append(f"Pending: {_escape(view.pending)}.")
    blocks += ["## Trials", _per_trial(view.trials)]
    if view.remarks:
        blocks += ["## Remarks", "\n".join(f"- {_escape(remark)}" for remark in view.remarks)]
    return "\n\n".join(blocks) + "\n"


def _markdown_block(block: Block) -> list[str]:
    columns, lost = fit(block.columns, block.cuts, WIDTH, flat_width)
    shown = _tabulated(
        {key: [_escape(text) for text in column.texts()] for key, column in columns.items()}, columns, "pipe"
    )
    return [f"{block.title[0].upper()}{block.title[1:]}:", shown, *([_too_wide(lost)] if lost else [])]


def _tabulated(texts: dict[str, list[str]], columns: dict[str, Column], form: str) -> str:
    heading = [column.heading_text for column in columns.values()]
    side = ["left" if key == "arm" else "right" for key in columns]
    lines = list(zip(*texts.values(), strict=True))
    return str(tabulate(lines, heading, form, disable_numparse=True, colalign=side))


def _too_wide(lost: list[str]) -> str:
    return f"Too wide with: {', '.join(lost)}."


def _per_trial(trials: pd.DataFrame) -> str:
    def shown(value: object) -> str:
        if value is None:
            return ""
        return format(value, ".6f") if isinstance(value, float) else _escape(str(value))

    columns = ["arm", "seed", "status", *listed_scores(trials), "artifact_bytes", "steps"]
    lines = [list(map(shown, row.values())) for row in records(trials[columns])]
    right = ["left" if name in ("arm", "status") else "right" for name in columns]
    return str(tabulate(lines, columns, "pipe", disable_numparse=True, colalign=right))


def _latex(view: View) -> str:
    """Two booktabs tabulars of the arms and one of the footnotes; the packages it needs stand in its first line."""
    parts = ["% needs \\usepackage{booktabs}"]
    compared, described = view.blocks
    for block in (compared, described):
        columns, _ = fit(block.columns, block.cuts, WIDTH, flat_width)
        texts = {key: [" ".join(text.split()) for text in column.texts()] for key, column in columns.items()}
        parts += [f"% {block.title}", _tabulated(texts, columns, "latex_booktabs")]
        if block is compared and view.footnotes:
            notes = [(f"[{i}]", note) for i, note in enumerate(view.footnotes, 1)]
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

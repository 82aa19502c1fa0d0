"""The table of a run as files and text: Markdown and LaTeX per arm, CSV, JSON and Parquet per trial.

People read arms, programs read trials: the per-trial formats hold exactly the columns of `results.schema`. The same
content for a terminal is `results/terminal.py`.
"""

import io
import json
from pathlib import Path
from typing import Literal, overload

import pandas as pd
from tabulate import tabulate

from results.schema import records
from results.terminal import print_rich as print_rich
from results.view import View, headers, view_run
from trainer.errors import InputError
from trainer.layout import RunLayout, write_bytes, write_text

FORMATS = ("md", "csv", "json", "latex", "parquet")
_PER_TRIAL = (
    "arm", "seed", "status", "float_bpb", "post_quant_bpb", "quant_gap", "sliding_bpb", "artifact_bytes", "steps",
    "step_ms", "qat_on_step", "wall_s", "node",
)  # fmt: skip
_DIGITS = {"step_ms": ".1f", "wall_s": ".0f"}


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
    names = {key: " ".join(lines).replace("- ", "-") for key, lines in headers(view).items()}
    lines = [[_escape(arm.cells[key].text) for key in names] for arm in view.arms]
    right = ["left" if key == "arm" else "right" for key in names]
    blocks.append(tabulate(lines, list(names.values()), "pipe", disable_numparse=True, colalign=right))
    blocks.append("\n".join(f"- {_escape(arm.sentence)}" for arm in view.arms))
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


def _per_trial(trials: pd.DataFrame) -> str:
    def shown(name: str, value: object) -> str:
        if value is None:
            return ""
        return format(value, _DIGITS.get(name, ".6f")) if isinstance(value, float) else _escape(str(value))

    lines = [[shown(name, value) for name, value in row.items()] for row in records(trials[list(_PER_TRIAL)])]
    right = ["left" if name in ("arm", "status", "node") else "right" for name in _PER_TRIAL]
    return str(tabulate(lines, list(_PER_TRIAL), "pipe", disable_numparse=True, colalign=right))


def _latex(view: View) -> str:
    """A booktabs tabular of the arms; the packages it needs stand in its first line."""
    names = {key: " ".join(lines).replace("- ", "-") for key, lines in headers(view).items()}
    lines = [[arm.cells[key].text for key in names] for arm in view.arms]
    right = ["left" if key == "arm" else "right" for key in names]
    body = str(tabulate(lines, list(names.values()), "latex_booktabs", disable_numparse=True, colalign=right))
    for sign, command in (("±", r"$\pm$"), ("Δ", r"$\Delta$"), ("×", r"$\times$"), ("–", "--")):
        body = body.replace(sign, command)
    return f"% needs \\usepackage{{booktabs}}\n{body}\n"


def _csv(trials: pd.DataFrame) -> str:
    return trials.to_csv(index=False, lineterminator="\n")


def _parquet(trials: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    trials.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")

"""The table of a run as text and files: Markdown and LaTeX with a row per arm, CSV, JSON and Parquet with a row per trial.

The formats with a row per trial have exactly the columns of `results.schema`. For the terminal see
`results/present/terminal.py`.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import pandas as pd
from tabulate import tabulate

from results.present.column_layout import markdown_text, one_line, pipe_table
from results.present.effects_table import HEADINGS, effect_rows
from results.present.several_runs import Runs
from results.present.table_model import ArmTable, RunTable, build_table
from results.schema import NAMES, listed_scores, records
from trainer.errors import InputError
from trainer.records.files import write_bytes, write_text
from trainer.records.layout import RunLayout


class Chosen(TypedDict, total=False):
    """What `build_table` may be asked for."""

    metric: str | None
    sort: str | None
    columns: Sequence[str]


FORMATS = ("md", "csv", "json", "latex", "parquet")
_FORMULA = re.compile(r"^(?=[=+\-@\t\r])")


def write_all(run_root: str | Path) -> None:
    """Rewrite table.md, table.csv and table.parquet of a run. Each is replaced atomically."""
    layout = RunLayout(Path(run_root))
    table = build_table(layout.root)
    write_text(layout.table("md"), _markdown(table))
    write_text(layout.table("csv"), _csv(table.stored))
    write_bytes(layout.table("parquet"), table.stored.to_parquet(index=False))


def render(run: Runs, fmt: str, control: str | None = None, **chosen: Unpack[Chosen]) -> str:
    """Return the table of a run, or of several, as text; see `build_table` for the other arguments and errors.

    Args:
        fmt: md, latex: tables of arms; md also lists the trials. csv, json: a row per trial with the columns of
            `results.schema`, or those chosen; null is an empty field in csv.
    Raises:
        InputError: no such format, or a column that is not in it.
    """
    if fmt in ("md", "latex"):
        table = build_table(run, control, **chosen)
        return _markdown(table) if fmt == "md" else _latex(table)
    trials = _stored(run, control, **chosen)
    if fmt == "csv":
        return _csv(trials)
    if fmt == "json":
        return json.dumps(records(trials), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    raise InputError("--format", "format", fmt, f"use one of {', '.join(FORMATS)}")


def render_parquet(run: Runs, control: str | None = None, **chosen: Unpack[Chosen]) -> bytes:
    """Return the trials of a run as a Parquet file; see `build_table` for arguments and errors."""
    return _stored(run, control, **chosen).to_parquet(index=False)


def _stored(run: Runs, control: str | None, **chosen: Unpack[Chosen]) -> pd.DataFrame:
    """Return the rows of trials in the order of their arms, with the chosen columns."""
    columns = list(chosen.get("columns") or ())
    for name in columns:
        if name not in NAMES:
            raise InputError(
                "--columns", "column", name, "not a column of single trials, which this format has; see docs/columns.md"
            )
    table = build_table(run, control, metric=chosen.get("metric"), sort=chosen.get("sort"))
    trials = table.stored
    if chosen.get("sort"):
        order = {arm.name: index for index, arm in enumerate(table.arms)}
        trials = trials.loc[table.trials["arm"].map(order).sort_values(kind="stable").index]
    return trials[[*(name for name in ("arm", "seed") if name not in columns), *columns]] if columns else trials


def overview(run: Runs, control: str | None = None, **chosen: Unpack[Chosen]) -> dict[str, object]:
    """Return arms and trials of a run in JSON types, unrounded: the content of `pgray table --json`."""
    table = build_table(run, control, **chosen)
    own_name = dict(zip(table.trials["arm"], table.stored["arm"], strict=True))
    return {
        "sweep": table.sweep,
        "question": table.question,
        "control": own_name.get(table.control, table.control),
        "metric": table.metric,
        "arms": [line | {"arm": own_name[line["arm"]], "label": line["arm"]} for line in records(table.ablation)],
        "verdicts": [arm.sentence for arm in table.arms],
        "trials": records(table.stored),
        "remarks": table.remarks,
    }


def _csv(trials: pd.DataFrame) -> str:
    """Return the rows as CSV. A text that a spreadsheet would run as a formula begins with an apostrophe."""
    texts = [str(name) for name in trials if trials[name].dtype == "string"]
    plain = trials.assign(**{name: trials[name].str.replace(_FORMULA, "'", regex=True) for name in texts})
    return str(plain.to_csv(index=False, lineterminator="\n"))


def _markdown(table: RunTable) -> str:
    blocks = [f"# {markdown_text(table.sweep)}"]
    if table.question:
        blocks.append(markdown_text(table.question))
    if not table.arms:
        return "\n\n".join([*blocks, "No trials yet."]) + "\n"
    comparison, *others = table.tables
    blocks += _markdown_table(comparison)
    if table.footnotes:
        blocks.append("\n".join(f"- [{i}] {markdown_text(note)}" for i, note in enumerate(table.footnotes, 1)))
    for other in others:
        blocks += _markdown_table(other)
    effects, cautions = effect_rows(table)
    if effects:
        blocks += [
            "Effects of the factors, each averaged over the others:",
            pipe_table(HEADINGS, effects, HEADINGS[:2]),
        ]
        blocks += [f"Effects: {markdown_text(caution)}." for caution in cautions]
    if table.lost:
        heading = ("arm", "seed", "status", "reason")
        rows = [(trial.arm, trial.seed, trial.outcome, trial.reason) for trial in table.lost]
        blocks += ["## Trials without a result", pipe_table(heading, rows)]
    if table.pending:
        blocks.append(f"Pending: {markdown_text(table.pending)}.")
    blocks += ["## Trials", _trials(table.trials)]
    if table.remarks:
        blocks += ["## Remarks", "\n".join(f"- {markdown_text(remark)}" for remark in table.remarks)]
    return "\n\n".join(blocks) + "\n"


def _markdown_table(table: ArmTable) -> list[str]:
    rows = zip(*(column.texts() for column in table.columns.values()), strict=True)
    text = pipe_table([column.heading for column in table.columns.values()], rows, left=("arm",))
    return [f"{table.title[0].upper()}{table.title[1:]}:", text]


def _trials(trials: pd.DataFrame) -> str:
    columns = ["arm", "seed", "status", *listed_scores(trials), "artifact_bytes", "steps"]
    cells = (row.values() for row in records(trials[columns]))
    rows = [["" if c is None else f"{c:.6f}" if isinstance(c, float) else c for c in row] for row in cells]
    return pipe_table(columns, rows, left=("arm", "status"))


def _latex(table: RunTable) -> str:
    """Return booktabs tabulars: two of the arms, one of the footnotes."""
    if not table.arms:
        return "% No trials yet.\n"
    parts = ["% needs \\usepackage{booktabs}"]
    for i, arm_table in enumerate(table.tables):
        columns = arm_table.columns
        cells = {one_line(c.heading): [" ".join(text.split()) for text in c.texts()] for c in columns.values()}
        align = ["left" if key == "arm" else "right" for key in columns]
        tabular = tabulate(cells, "keys", "latex_booktabs", disable_numparse=True, colalign=align)
        parts += [f"% {arm_table.title}", str(tabular)]
        if i == 0 and table.footnotes:
            notes = [(f"[{mark}]", note) for mark, note in enumerate(table.footnotes, 1)]
            parts.append(str(tabulate(notes, tablefmt="latex_booktabs", disable_numparse=True)))
    body = re.sub(" {2,}", " ", "\n".join(parts))
    for sign, command in (("±", r"$\pm$"), ("Δ", r"$\Delta$"), ("×", r"$\times$"), ("–", "--"), ("≥", r"$\ge$")):
        body = body.replace(sign, command)
    return f"{body}\n"

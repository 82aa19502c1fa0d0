"""The report of a run: one HTML file with verdict, tables, charts, config differences, failures, cost and provenance.

The file holds plotly.js in compressed form (about 2 MB), which the browser unpacks. It loads nothing else, and its content
security policy forbids that. Without JavaScript everything except the charts is shown. The numbers of the tables are the
cells of `results/present/table_model.py`.
"""

import base64
import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pandas as pd
import plotly
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from results import plots
from results.analysis.decomposition import decompose
from results.analysis.effects import effects
from results.loading.configs import Change, changes, config_of
from results.loading.curves import curves
from results.loading.runs import current
from results.loading.study import read_study
from results.plots.search import importance_plot, proposal_plot
from results.plots.style import DARK, LIGHT, why_empty
from results.present.column_layout import half_width, number, one_line
from results.present.table_model import ArmTable, RunTable, build_table
from results.report.facts import costs, provenance, search_sentence, trial_logs, verdict_sentence
from results.schema import Row, listed_scores, records
from trainer.errors import InputError
from trainer.records.files import write_text
from trainer.records.layout import RunLayout
from trainer.records.states import TrialState

_TOP_PX = 26  # above a chart, for the buttons
_MOST_TRIALS = 500  # rows in the list of trials, so that the report of a large search stays small
_FILES = (
    "sweep.yaml", "table.md", "table.csv", "table.parquet", "ledger.jsonl", "provenance.json", "study.json",
)  # fmt: skip
_TRIAL_FILES = ("config.json", "result.json", "artifact.pgz", "log.txt", "events.jsonl")
_TERMS = {
    "delta": "Δ", "equal_steps": "at equal steps", "fewer_steps": "fewer steps", "averaging": "averaging",
    "quant_gap": "quant gap", "sliding": "sliding window",
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """A table of texts; the first column names the row."""

    title: str
    heading: list[str]
    rows: list[list[str]]
    footnotes: list[str]


def write_report(run: str | Path, control: str | None = None) -> Path:
    """Write RUN/report.html atomically and return its path; see `build_table` for arguments and errors."""
    path = RunLayout(Path(run)).report
    write_text(path, report(run, control))
    return path


def report(run: str | Path, control: str | None = None) -> str:
    """Return the text of the report; see `write_report`."""
    layout = RunLayout(Path(run))
    table, logged = build_table(run, control), curves(run)
    try:
        study = read_study(layout)
        searched = search_sentence(study)
    except InputError as error:
        study, searched = None, f"The search is not shown: {error}."
    logs = trial_logs(table.lost, layout)
    figures = [
        plots.deltas(table.trials, table.control, table.metric),
        plots.learning_curves(logged, table.trials, table.control),
        plots.sizes(table.trials, table.control, table.metric),
        plots.gaps(table.trials, table.control),
        plots.step_tax(table.trials, table.control, table.metric, logged),
        *([proposal_plot(study), importance_plot(study)] if study else []),
    ]
    shown = [figure for figure in figures if not why_empty(figure)]
    return _template().render(
        table=table,
        verdict=f"{searched} {verdict_sentence(table)}".strip(),
        counts=current(table.trials)["status"].value_counts(sort=False).to_dict(),
        arm_tables=[_arm_grid(arm_table, table) for arm_table in table.tables] if table.arms else [],
        charts=[figure.layout.meta for figure in shown],
        empty_charts=[figure.layout.meta for figure in figures if why_empty(figure)],
        top_px=_TOP_PX,
        chart_data={
            "charts": [_chart_data(figure) for figure in shown],
            "templates": {"light": LIGHT.to_plotly_json(), "dark": DARK.to_plotly_json()},
        },
        configs=_config_differences(table),
        sweep_text=layout.sweep.read_text(errors="replace") if layout.sweep.is_file() else "",
        decomposition=_decomposition(table, logged),
        effects=_effects(table),
        failed=[log for log in logs if log.trial.status != TrialState.KILLED],
        killed=[log for log in logs if log.trial.status == TrialState.KILLED],
        trial_heading=list(_trial_columns(table.trials)),
        trials=_trials(table, layout),
        num_trials=len(table.trials),
        costs=Grid("", ["trials", "number", "GPU-hours", "US dollars", "wall hours"], costs(table.trials), []),
        provenance=provenance(table.trials, layout),
        files=[name for name in _FILES if (layout.root / name).is_file()],
        plotly_gz=_plotly_gz() if shown else "",
        plotly_version=plotly.__version__,
    )


def _chart_data(figure: go.Figure) -> dict[str, Any]:
    """Return data and layout for plotly.js, without what the page shows itself."""
    plain = figure.to_plotly_json()
    layout = {k: v for k, v in plain["layout"].items() if k not in ("title", "template", "meta")}
    layout |= {"height": figure.layout.meta["height_px"] + _TOP_PX, "margin": layout["margin"] | {"t": _TOP_PX}}
    return {"data": plain["data"], "layout": layout}


def _arm_grid(arm_table: ArmTable, table: RunTable) -> Grid:
    columns = list(arm_table.columns.values())
    cells = zip(*(column.texts() for column in columns), strict=True)
    rows = [[arm.name, *row[1:]] for arm, row in zip(table.arms, cells, strict=True)]
    footnotes = table.footnotes if "verdict" in arm_table.columns else []
    return Grid(arm_table.title, [one_line(column.heading) for column in columns], rows, footnotes)


def _config_differences(table: RunTable) -> dict[str, list[Change] | None]:
    """Return arm -> its differences from the control's config; None if one of the two configs is unknown."""
    rows: dict[str, list[Row]] = {}
    for row in records(current(table.trials)):
        rows.setdefault(row["arm"], []).append(row)
    configs = {arm.name: config_of(rows[arm.name], table.trials.attrs["runs"]) for arm in table.arms}
    base = configs.get(table.control or "", {})
    return {name: changes(config, base) if config and base else None for name, config in configs.items()}


def _decomposition(table: RunTable, logged: pd.DataFrame) -> Grid | None:
    lines = records(decompose(table.trials, table.control, metrics=[table.metric], curves=logged)) if table.arms else []
    known = [line for line in lines if line["float"] is not None]
    if not known:
        return None
    keys = [key for key in _TERMS if any(line[key] is not None for line in known)]
    reasons = list(dict.fromkeys(line["reason"] for line in known if line["reason"]))
    rows = []
    for line in known:
        mark = f" [{reasons.index(line['reason']) + 1}]" if line["reason"] else ""
        rows.append([line["arm"] + mark, *(number(line[key], "+z.4f") for key in keys)])
    return Grid("", ["arm", *(_TERMS[key] for key in keys)], rows, reasons)


def _effects(table: RunTable) -> Grid | None:
    """Return main effects and interactions if the arms are a full cross of two or more factors."""
    try:
        estimates = effects(table.trials, None, table.control, table.metric)
    except InputError:  # no full cross, or arms that cannot be compared; the table of arms shows the latter
        return None
    rows, reasons = [], []
    for line in records(estimates):
        estimate = f"{number(line['estimate'], '+.4f')} {half_width(line['ci_low'], line['ci_high'])}".rstrip()
        rows.append([line["term"], line["levels"], estimate, number(line["p_holm"], ".2g")])
        reasons += [line["reason"]] if line["reason"] and line["reason"] not in reasons else []
    return Grid("", ["effect", "levels", "Δ ± 95 % CI", "p (Holm)"], rows, reasons)


def _trials(table: RunTable, layout: RunLayout) -> list[tuple[list[str], list[tuple[str, str]]]]:
    """Return the cells of the first trials, and name and link of their files."""
    found, formats = [], _trial_columns(table.trials)
    for row in records(table.trials.head(_MOST_TRIALS)):
        cells = [number(row[name], form) for name, form in formats.items()]
        if row["is_current"] is False:
            cells[2] += ", superseded"
        folder = layout.trial(row["trial_id"]).root
        paths = [*(folder / name for name in _TRIAL_FILES), layout.imported(row["trial_id"])]
        links = [(path.name, quote(str(path.relative_to(layout.root)))) for path in paths if path.is_file()]
        found.append((cells, links))
    return found


def _trial_columns(trials: pd.DataFrame) -> dict[str, str]:
    """Return the columns of the list of trials with their formats."""
    scores = dict.fromkeys(listed_scores(trials), ".6f")
    return {"arm": "", "seed": "", "status": "", **scores, "artifact_bytes": ",", "steps": ",", "step_ms": ",.1f"}


@cache
def _template() -> jinja2.Template:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("results.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html")  # fmt: skip


@cache
def _plotly_gz() -> str:
    """Return plotly.js, gzipped, in base64."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()

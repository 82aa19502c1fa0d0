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

from results import plots
from results.analysis.decomposition import decompose
from results.analysis.effects import effects
from results.loading.configs import Change, changes, config_of
from results.loading.curves import curves
from results.loading.runs import current
from results.loading.study import StudySummary, read_study
from results.plots.search import importance_plot, proposal_plot
from results.plots.style import DARK, LIGHT, why_empty
from results.present.column_layout import half_width, number
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


@dataclass(frozen=True)
class Chart:
    """A plotly chart. layout: without title and template; why_empty: shown instead of the chart."""

    title: str
    note: str
    height_px: int
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    why_empty: str | None


@dataclass(frozen=True)
class ArmConfig:
    """changes: None where the config of the arm or of the control is unknown."""

    name: str
    is_control: bool
    changes: list[Change] | None


def write_report(run: str | Path, control: str | None = None) -> Path:
    """Write RUN/report.html atomically.

    Args:
        run: the run folder.
        control: the arm to compare with; None: the sweep's own, else the first arm.
    Returns:
        The path of the report.
    Raises:
        InputError: no run there, or `control` is not among its arms.
    """
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
    charts = [_chart(figure) for figure in _figures(table, logged, study)]
    shown = [chart for chart in charts if not chart.why_empty]
    return _template().render(
        table=table,
        verdict=f"{searched} {verdict_sentence(table)}".strip(),
        counts=current(table.trials)["status"].value_counts(sort=False).to_dict(),
        arm_tables=[_arm_grid(arm_table, table) for arm_table in table.tables] if table.arms else [],
        charts=shown,
        empty_charts=[chart for chart in charts if chart.why_empty],
        chart_data={
            "charts": [{"data": chart.data, "layout": chart.layout} for chart in shown],
            "templates": {"light": LIGHT.to_plotly_json(), "dark": DARK.to_plotly_json()},
        },
        arms=_arm_configs(table),
        sweep_text=layout.sweep.read_text(errors="replace") if layout.sweep.is_file() else "",
        decomposition=_decomposition(table, logged),
        effects=_effects(table),
        failed=[log for log in logs if log.trial.status != TrialState.KILLED],
        killed=[log for log in logs if log.trial.status == TrialState.KILLED],
        trial_heading=list(_trial_columns(table.trials)),
        trials=_trials(table, layout),
        num_trials=len(table.trials),
        costs=costs(table.trials),
        provenance=provenance(table.trials, layout),
        files=[(name, quote(name)) for name in _FILES if (layout.root / name).is_file()],
        plotly_gz=_plotly_gz() if shown else "",
        plotly_version=plotly.__version__,
    )


def _figures(table: RunTable, logged: pd.DataFrame, study: StudySummary | None) -> list[go.Figure]:
    trials, control, metric = table.trials, table.control, table.metric
    return [
        plots.deltas(trials, control, metric),
        plots.learning_curves(logged, trials, control),
        plots.sizes(trials, control, metric),
        plots.gaps(trials, control),
        plots.step_tax(trials, control, metric, logged),
        *([proposal_plot(study), importance_plot(study)] if study else []),
    ]


def _chart(figure: go.Figure) -> Chart:
    about, plain = figure.layout.meta, figure.to_plotly_json()
    layout = {k: v for k, v in plain["layout"].items() if k not in ("title", "template", "meta")}
    height_px = about["height_px"] + _TOP_PX
    layout |= {"height": height_px, "margin": layout["margin"] | {"t": _TOP_PX}}
    return Chart(about["title"], about["note"], height_px, plain["data"], layout, why_empty(figure))


def _arm_grid(arm_table: ArmTable, table: RunTable) -> Grid:
    columns = list(arm_table.columns.values())
    cells = zip(*(column.texts() for column in columns), strict=True)
    rows = [[arm.name, *row[1:]] for arm, row in zip(table.arms, cells, strict=True)]
    footnotes = table.footnotes if "verdict" in arm_table.columns else []
    return Grid(arm_table.title, [column.heading_text for column in columns], rows, footnotes)


def _arm_configs(table: RunTable) -> list[ArmConfig]:
    rows: dict[str, list[Row]] = {}
    for row in records(current(table.trials)):
        rows.setdefault(row["arm"], []).append(row)
    configs = {arm.name: config_of(rows[arm.name], table.trials.attrs["runs"]) for arm in table.arms}
    base = configs.get(table.control or "", {})
    return [
        ArmConfig(arm.name, arm.is_control, changes(configs[arm.name], base) if configs[arm.name] and base else None)
        for arm in table.arms
    ]


def _decomposition(table: RunTable, logged: pd.DataFrame) -> Grid | None:
    if not table.arms:
        return None
    lines = records(decompose(table.trials, table.control, metrics=[table.metric], curves=logged))
    known = [line for line in lines if line["float"] is not None]
    keys = [key for key in _TERMS if any(line[key] is not None for line in known)]
    if not known:
        return None
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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("results.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["fixed"] = lambda value: number(value, ",.2f")
    return environment.get_template("report.html")


@cache
def _plotly_gz() -> str:
    """Return plotly.js, gzipped, in base64."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()

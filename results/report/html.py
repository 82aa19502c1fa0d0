"""The report of a run: one HTML file with verdict, tables, charts, config differences, failures, cost and provenance.

The file holds plotly.js in compressed form (about 2 MB), which the browser unpacks. It loads nothing else, and its content
security policy forbids that. Without JavaScript everything except the charts is shown. The numbers of the tables are the
cells of `results/present/table_model.py`.
"""

import base64
import gzip
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import plotly
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from results import plots
from results.analysis.verdicts import MEANINGS
from results.loading.curves import curves
from results.loading.runs import current
from results.loading.study import StudySummary, read_study
from results.plots.parameters import importance_plot, parallel_plot, slice_plot
from results.plots.search import constraint_plot, proposal_plot
from results.plots.style import DARK, LIGHT, why_empty
from results.present.table_model import RunTable, build_table
from results.report.answer import answer, search_answer
from results.report.facts import costs, provenance, provenance_line, trial_logs
from results.report.grids import (
    Grid,
    arm_grid,
    config_differences,
    decomposition_grid,
    effect_grid,
    proposal_grid,
    trial_grid,
)
from results.report.terms import VERDICT_KINDS
from trainer.errors import InputError
from trainer.records.files import write_text
from trainer.records.layout import RunLayout
from trainer.records.states import TrialState

_TOP_PX = 26  # above a chart, for the buttons
_FILES = (
    "sweep.yaml", "table.md", "table.csv", "table.parquet", "ledger.jsonl", "provenance.json", "study.json",
)  # fmt: skip


def write_report(run: str | Path, control: str | None = None) -> Path:
    """Write RUN/report.html atomically and return its path; see `build_table` for arguments and errors."""
    path = RunLayout(Path(run)).report
    write_text(path, report(run, control))
    return path


def report(run: str | Path, control: str | None = None) -> str:
    """Return the text of the report; see `write_report`."""
    layout = RunLayout(Path(run))
    table, logged = build_table(run, control), curves(run)
    study, problem = _study(layout)
    configs, effects = config_differences(table), effect_grid(table)
    answers = [answer(table, configs)]
    if study:
        answers.insert(0, search_answer(study))
    logs = trial_logs(table.lost, layout)
    figures = _figures(table, logged, study, is_cross=effects is not None)
    shown = {key: figure for key, figure in figures.items() if not why_empty(figure)}
    return _template().render(
        table=table,
        answers=answers,
        search_problem=problem,
        provenance_line=provenance_line(table.trials, layout),
        counts=current(table.trials)["status"].value_counts(sort=False).to_dict(),
        arm_tables=[arm_grid(own, table, i) for i, own in enumerate(table.tables)] if table.arms else [],
        verdict_kinds=VERDICT_KINDS,
        proposals=proposal_grid(study) if study and study.trials else None,
        charts={key: figure.layout.meta for key, figure in figures.items()},
        top_px=_TOP_PX,
        chart_data={
            "charts": {key: _chart_data(figure) for key, figure in shown.items()},
            "templates": {"light": LIGHT.to_plotly_json(), "dark": DARK.to_plotly_json()},
        },
        configs=configs,
        sweep_text=layout.sweep.read_text(errors="replace") if layout.sweep.is_file() else "",
        decomposition=decomposition_grid(table, logged),
        effects=effects,
        failed=[log for log in logs if log.trial.status != TrialState.KILLED],
        killed=[log for log in logs if log.trial.status == TrialState.KILLED],
        trials=trial_grid(table, layout),
        num_trials=len(table.trials),
        costs=Grid("cost", "", ["trials", "number", "GPU-hours", "US dollars", "wall hours"], costs(table.trials)),
        provenance=provenance(table.trials, layout),
        files=[name for name in _FILES if (layout.root / name).is_file()],
        plotly_gz=_plotly_gz() if shown else "",
        plotly_version=plotly.__version__,
    )


def _study(layout: RunLayout) -> tuple[StudySummary | None, str]:
    """Return the search, and the sentence that says why it is not shown."""
    try:
        return read_study(layout), ""
    except InputError as error:
        return None, f"The search is not shown: {error}."


def _figures(
    table: RunTable, logged: pd.DataFrame, study: StudySummary | None, *, is_cross: bool
) -> dict[str, go.Figure]:
    """Return the charts by the name that their anchors have. Those of a search begin with `search-`."""
    trials, control, metric = table.trials, table.control, table.metric
    found = {"interactions": plots.interactions(trials, control, metric)} if is_cross else {}
    if study:
        found |= {"search-proposals": proposal_plot(study)}
        limited = [column for column in study.limits if column not in study.objectives]
        found |= {f"search-limit-{column}": constraint_plot(study, column) for column in limited}
        found |= {"search-importances": importance_plot(study), "search-parameters": parallel_plot(study)}
        found |= {"search-slices": slice_plot(study)}
    return found | {
        "deltas": plots.deltas(trials, control, metric),
        "curves": plots.learning_curves(logged, trials, control),
        "sizes": plots.sizes(trials, control, metric),
        "gaps": plots.gaps(trials, control),
        "step-tax": plots.step_tax(trials, control, metric, logged),
    }


def _chart_data(figure: go.Figure) -> dict[str, Any]:
    """Return data and layout for plotly.js, without what the page shows itself."""
    plain = figure.to_plotly_json()
    layout = {k: v for k, v in plain["layout"].items() if k not in ("title", "template", "meta")}
    layout |= {"height": figure.layout.meta["height_px"] + _TOP_PX, "margin": layout["margin"] | {"t": _TOP_PX}}
    return {"data": plain["data"], "layout": layout}


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("results.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.globals["meanings"] = MEANINGS
    return environment.get_template("report.html")


@cache
def _plotly_gz() -> str:
    """Return plotly.js, gzipped, in base64."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()

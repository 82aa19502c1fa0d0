"""A run as one HTML file that needs nothing else: question, verdict, table, pictures, configs, failures, cost, provenance.

plotly.js is inside, compressed, and the browser unpacks it; so the file is about 2 MB. It loads nothing from anywhere,
and its content security policy forbids that it could. Without JavaScript everything but the pictures is there. Numbers
are the cells of the table (`view.py`), not computed again.
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

from results.analysis.decomposition import decompose
from results.analysis.effects import effects
from results.loading.configs import Change, changes, config_of
from results.loading.curves import curves
from results.loading.runs import current
from results.plots import figures as plots
from results.plots import search as search_plots
from results.plots.style import DARK, LIGHT, why_empty
from results.present.column_layout import NONE
from results.present.table_model import Block, View, view_run
from results.report.facts import costs, lost_trials, provenance, search_sentence, verdict_sentence
from results.schema import Row, listed_scores, records
from trainer.errors import InputError
from trainer.records.files import read_json, write_text
from trainer.records.layout import RunLayout
from trainer.records.states import TrialState

_TOP_PX = 26  # above a picture, where its heading was
_MOST_TRIALS = 500  # rows in the list of trials: a report of thousands must stay small
_FILES = (
    "sweep.yaml", "table.md", "table.csv", "table.parquet", "ledger.jsonl", "provenance.json", "study.json",
)  # fmt: skip
_OF_TRIAL = ("config.json", "result.json", "artifact.pgz", "log.txt", "events.jsonl")
_PARTS = {
    "delta": "Δ", "equal_steps": "at equal steps", "fewer_steps": "fewer steps", "averaging": "averaging",
    "quant_gap": "quant gap", "sliding": "sliding window",
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """A table of texts; the first column is the name of the row. `footnotes`: below it."""

    title: str
    heading: list[str]
    rows: list[list[str]]
    footnotes: list[str]


@dataclass(frozen=True)
class Picture:
    """`layout` without heading and template; `why_empty`: said instead of a picture."""

    title: str
    note: str
    height_px: int
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    why_empty: str | None


@dataclass(frozen=True)
class ArmConfig:
    """`changes`: None where the config of the arm or of the control is not known."""

    name: str
    is_control: bool
    changes: list[Change] | None


def write_report(run: str | Path, control: str | None = None) -> Path:
    """Write RUN/report.html, whole or not at all.

    Args:
        run: the run folder.
        control: the arm to compare with; None: the sweep's own, else the first arm.
    Returns:
        Its path.
    Raises:
        InputError: no run there, or `control` is not among its arms.
    """
    path = RunLayout(Path(run)).report
    write_text(path, report(run, control))
    return path


def report(run: str | Path, control: str | None = None) -> str:
    """The text of the report; see `write_report`."""
    root = Path(run)
    view = view_run(root, control)
    trials, logged = view.trials, curves(root)
    lost = lost_trials(trials, root)
    pictures = [_picture(drawn) for drawn in _drawn(view, logged, read_json(RunLayout(root).study))]
    drawn = [picture for picture in pictures if not picture.why_empty]
    return _template().render(
        view=view,
        verdict=f"{search_sentence(read_json(RunLayout(root).study))} {verdict_sentence(view)}".strip(),
        counts=current(trials)["status"].value_counts(sort=False).to_dict(),
        blocks=[_grid_of(block, view) for block in view.blocks] if view.arms else [],
        pictures=drawn,
        not_drawn=[picture for picture in pictures if picture.why_empty],
        drawings={
            "pictures": [{"data": picture.data, "layout": picture.layout} for picture in drawn],
            "templates": {"light": LIGHT.to_plotly_json(), "dark": DARK.to_plotly_json()},
        },
        arms=_arm_configs(view),
        sweep_text=_text(RunLayout(root).sweep),
        parts=_decomposed(view, logged),
        effects=_effects(view),
        failed=[trial for trial in lost if trial.status != TrialState.KILLED],
        killed=[trial for trial in lost if trial.status == TrialState.KILLED],
        trial_heading=list(_trial_cells(trials)),
        trials=_trials(view, root),
        num_trials=len(trials),
        costs=costs(trials),
        provenance=provenance(trials, root),
        files=[(name, quote(name)) for name in _FILES if (root / name).is_file()],
        plotly_gz=_plotly_gz() if drawn else "",
        plotly_version=plotly.__version__,
    )


def _drawn(view: View, logged: pd.DataFrame, study: dict[str, Any]) -> list[go.Figure]:
    trials, control, metric = view.trials, view.control, view.metric
    figures = [
        plots.deltas(trials, control, metric),
        plots.learning_curves(logged, trials, control),
        plots.sizes(trials, control, metric),
        plots.gaps(trials, control),
        plots.step_tax(trials, control, metric, logged),
    ]
    if study:
        figures += [
            search_plots.proposal_plot(search_plots.proposals(study)),
            search_plots.importance_plot(search_plots.importances(study)),
        ]
    return figures


def _picture(drawn: go.Figure) -> Picture:
    about, plain = drawn.layout.meta, drawn.to_plotly_json()
    layout = {k: v for k, v in plain["layout"].items() if k not in ("title", "template", "meta")}
    height_px = about["height_px"] + _TOP_PX
    layout |= {"height": height_px, "margin": layout["margin"] | {"t": _TOP_PX}}
    return Picture(about["title"], about["note"], height_px, plain["data"], layout, why_empty(drawn))


def _grid_of(block: Block, view: View) -> Grid:
    columns = list(block.columns.values())
    texts = [column.texts() for column in columns]
    rows = [[arm.name, *line[1:]] for arm, line in zip(view.arms, zip(*texts, strict=True), strict=True)]
    footnotes = view.footnotes if "verdict" in block.columns else []
    return Grid(block.title, [column.heading_text for column in columns], rows, footnotes)


def _arm_configs(view: View) -> list[ArmConfig]:
    rows: dict[str, list[Row]] = {}
    for row in records(current(view.trials)):
        rows.setdefault(row["arm"], []).append(row)
    configs = {arm.name: config_of(rows[arm.name], view.trials.attrs["runs"]) for arm in view.arms}
    base = configs.get(view.control or "", {})
    return [
        ArmConfig(arm.name, arm.is_control, changes(configs[arm.name], base) if configs[arm.name] and base else None)
        for arm in view.arms
    ]


def _decomposed(view: View, logged: pd.DataFrame) -> Grid | None:
    if not view.arms:
        return None
    lines = records(decompose(view.trials, view.control, metrics=[view.metric], curves=logged))
    known = [line for line in lines if line["float"] is not None]
    keys = [key for key in _PARTS if any(line[key] is not None for line in known)]
    if not known:
        return None
    reasons = list(dict.fromkeys(line["reason"] for line in known if line["reason"]))
    rows = []
    for line in known:
        mark = f" [{reasons.index(line['reason']) + 1}]" if line["reason"] else ""
        rows.append([line["arm"] + mark, *(_number(line[key], "+z.4f") for key in keys)])
    return Grid("", ["arm", *(_PARTS[key] for key in keys)], rows, reasons)


def _effects(view: View) -> Grid | None:
    """Main effects and interactions where the arms are a full cross of two or more factors."""
    try:
        table = effects(view.trials, None, view.control, view.metric)
    except InputError:  # they are not, or cannot be compared: said in the table
        return None
    rows, reasons = [], []
    for line in records(table):
        half = "" if line["ci_low"] is None else f" ±{(line['ci_high'] - line['ci_low']) / 2:.4f}"
        estimate = f"{_number(line['estimate'], '+.4f')}{half}"
        rows.append([line["term"], line["levels"], estimate, _number(line["p_holm"], ".2g")])
        reasons += [line["reason"]] if line["reason"] and line["reason"] not in reasons else []
    return Grid("", ["effect", "levels", "Δ ± 95 % CI", "p_holm"], rows, reasons)


def _trials(view: View, root: Path) -> list[tuple[list[str], list[tuple[str, str]]]]:
    """Cells of every trial, of the first of very many, and its files: name and link."""
    found, formats = [], _trial_cells(view.trials)
    for row in records(view.trials.head(_MOST_TRIALS)):
        cells = [_number(row[name], form) for name, form in formats.items()]
        if row["is_current"] is False:
            cells[2] += ", superseded"
        folder, own = RunLayout(root).trial(row["trial_id"]).root, []
        for path in [*(folder / name for name in _OF_TRIAL), RunLayout(root).imported(row["trial_id"])]:
            if path.is_file():
                own.append((path.name, quote(str(path.relative_to(root)))))
        found.append((cells, own))
    return found


def _trial_cells(trials: pd.DataFrame) -> dict[str, str]:
    """Return the columns of the list of trials with their formats."""
    scores = dict.fromkeys(listed_scores(trials), ".6f")
    return {"arm": "", "seed": "", "status": "", **scores, "artifact_bytes": ",", "steps": ",", "step_ms": ",.1f"}


def _number(value: Any, form: str) -> str:
    return NONE if value is None else format(value, form)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("results.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["fixed"] = lambda value: _number(value, ",.2f")
    return environment.get_template("report.html")


@cache
def _plotly_gz() -> str:
    """plotly.js, gzipped, in base64."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()

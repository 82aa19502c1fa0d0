"""The tables of a report: texts of `results/present/table_model.py`, config differences, effects, proposals, trials."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import pandas as pd

from results.analysis.decomposition import decompose
from results.loading.configs import Change, changes, config_of
from results.loading.runs import current
from results.loading.study import ProposalSummary, StudySummary
from results.present.column_layout import number, one_line
from results.present.effects_table import HEADINGS, effect_rows
from results.present.table_model import ArmTable, RunTable
from results.report.terms import explain
from results.schema import Row, listed_scores, records
from trainer.records.layout import RunLayout

_MOST_TRIALS = 500  # rows in the list of trials, so that the report of a large search stays small
_FIRST = ("arm", "Δ\n± 95 % CI", "verdict")
"""The columns that a narrow screen shows without scrolling."""
_TRIAL_FILES = ("log.txt", "result.json", "config.json", "events.jsonl", "artifact.pgz")
_TERMS = {
    "delta": "Δ", "equal_steps": "at equal steps", "fewer_steps": "fewer steps", "averaging": "averaging",
    "quant_gap": "quant gap", "sliding": "sliding window",
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """A table of texts; the first column names the row.

    `key`: begins the anchors of its footnotes; `terms`: heading -> explanation; `links`: for each row, name and path of files.
    """

    key: str
    title: str
    heading: list[str]
    rows: list[list[str]]
    footnotes: list[str] = field(default_factory=list)
    links: list[list[tuple[str, str]]] = field(default_factory=list)

    @property
    def terms(self) -> Mapping[str, str]:
        return {heading: explain(heading) for heading in self.heading}


def arm_grid(arm_table: ArmTable, table: RunTable, index: int) -> Grid:
    """Return a table of arms, with the columns of `_FIRST` first."""
    order = [key for key in _FIRST if key in arm_table.columns]
    order += [key for key in arm_table.columns if key not in order]
    cells = {key: column.texts() for key, column in arm_table.columns.items()} | {
        "arm": [arm.name for arm in table.arms]
    }
    rows = [list(row) for row in zip(*(cells[key] for key in order), strict=True)]
    footnotes = table.footnotes if "verdict" in arm_table.columns else []
    headings = [one_line(arm_table.columns[key].heading) for key in order]
    return Grid(f"table-{index}", arm_table.title, headings, rows, footnotes)


def config_differences(table: RunTable) -> dict[str, list[Change] | None]:
    """Return arm -> its differences from the control's config; None if one of the two configs is unknown."""
    rows: dict[str, list[Row]] = {}
    for row in records(current(table.trials)):
        rows.setdefault(row["arm"], []).append(row)
    configs = {arm.name: config_of(rows[arm.name], table.trials.attrs["runs"]) for arm in table.arms}
    base = configs.get(table.control or "", {})
    return {name: changes(config, base) if config and base else None for name, config in configs.items()}


def decomposition_grid(table: RunTable, logged: pd.DataFrame) -> Grid | None:
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
    return Grid("decomposition", "", ["arm", *(_TERMS[key] for key in keys)], rows, reasons)


def effect_grid(table: RunTable) -> Grid | None:
    """Return main effects and interactions if the arms are a full cross of two or more factors."""
    rows, reasons = effect_rows(table)
    if not rows:
        return None
    return Grid("effects", "", list(HEADINGS), rows, reasons)


def proposal_grid(study: StudySummary) -> Grid:
    """Return a row for each proposal: state, objectives, constrained columns with their limits, parameters."""
    limited = [column for column in study.limits if column not in study.objectives]
    limits = {text.split()[0]: text.removeprefix(text.split()[0]) for text in study.constraints}
    columns = [*study.objectives, *limited]
    headings = [f"{column}{limits.get(column, '')}" for column in columns]
    rows = []
    for trial in study.trials:
        values = [_value(trial.values.get(column)) + ("!" if _breaks(trial, column) else "") for column in columns]
        params = [_value(trial.params[key]) if key in trial.params else "–" for key in study.parameters]
        rows.append([trial.name, proposal_state(trial, study), *values, *params])
    return Grid("proposals", "Proposals", ["proposal", "state", *headings, *study.parameters], rows)


def proposal_state(trial: ProposalSummary, study: StudySummary) -> str:
    """Return the state of a proposal as the report says it."""
    if trial.name in study.best:
        return "★ best"
    return trial.state if trial.state != "complete" else "feasible" if trial.is_feasible else "✕ infeasible"


def _breaks(trial: ProposalSummary, column: str) -> bool:
    return any(excess > 0 for text, excess in trial.excess.items() if text.split()[0] == column)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.5g}"
    return "–" if value is None else str(value)


def trial_grid(table: RunTable, layout: RunLayout) -> Grid:
    """Return the first trials, with name and link of their files."""
    scores = dict.fromkeys(listed_scores(table.trials), ".6f")
    formats = {"arm": "", "seed": "", "status": "", **scores, "artifact_bytes": ",", "steps": ",", "step_ms": ",.1f"}
    rows, links = [], []
    for row in records(table.trials.head(_MOST_TRIALS)):
        cells = [number(row[name], form) for name, form in formats.items()]
        if row["is_current"] is False:
            cells[2] += ", superseded"
        folder = layout.trial(row["trial_id"]).root
        paths = [*(folder / name for name in _TRIAL_FILES), layout.imported(row["trial_id"])]
        rows.append(cells)
        links.append([(path.name, quote(str(path.relative_to(layout.root)))) for path in paths if path.is_file()])
    return Grid("trials", "", list(formats), rows, [], links)

"""Charts of a search: its proposals and their constraints. Every chart marks proposals the same way: `KINDS`."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from results.loading.study import ProposalSummary, StudySummary
from results.plots.style import COLORS, GREY, core, empty, figure, padded, safe

NOTE = "★ best. ○ feasible. × breaks a constraint."


@dataclass(frozen=True)
class Kind:
    symbol: str
    color: str
    size: int
    line_px: float
    dash: str


KINDS = {  # in drawing order
    "infeasible": Kind("x-thin-open", COLORS[3], 8, 1, "dot"),
    "feasible": Kind("circle-open", COLORS[0], 8, 1, "solid"),
    "best": Kind("star", COLORS[1], 12, 3, "solid"),
}


def proposal_plot(study: StudySummary) -> go.Figure:
    """Draw the scored proposals: one objective by the number of the proposal, or the first two against each other."""
    title = "Proposals of the search"
    if not study.scored or not study.objectives:
        return empty(title, "no proposal has been scored yet")
    if len(study.objectives) > 1:
        return _plane(study, title, *list(study.objectives)[:2])
    (y_name, direction), number = next(iter(study.objectives.items())), _numbers(study)
    feasible = [trial for trial in study.scored if trial.is_feasible]
    best_so_far = itertools.accumulate((t.values[y_name] for t in feasible), min if direction == "min" else max)
    line = go.Scatter(
        x=[number[trial.name] for trial in feasible], y=list(best_so_far), mode="lines", hoverinfo="skip",
        line={"shape": "hv", "color": GREY, "dash": "dot"},
    )  # fmt: skip
    x = {trial.name: number[trial.name] for trial in study.scored}
    return _scatter(study, title, f"{NOTE}{_unscored(study)} Dotted: the best so far.", "proposal", y_name, x, [line])


def constraint_plot(study: StudySummary, column: str) -> go.Figure:
    """Draw the first objective against a constrained column, with the limit as a line."""
    title = f"The limit of {column}"
    if not study.objectives or not any(column in trial.values for trial in study.scored):
        return empty(title, "no proposal has been scored yet")
    return _plane(study, title, column, next(iter(study.objectives)))


def value_text(value: object) -> str:
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def _numbers(study: StudySummary) -> dict[str, int]:
    return {trial.name: i for i, trial in enumerate(study.trials)}


def kinds_of(study: StudySummary) -> dict[str, str]:
    kinds = {trial.name: "feasible" if trial.is_feasible else "infeasible" for trial in study.scored}
    return kinds | {name: "best" for name in study.best if name in kinds}


def _unscored(study: StudySummary) -> str:
    number = len(study.trials) - len(study.scored)
    return f" Omitted: {number} open, failed or outside the space." if number else ""


def _plane(study: StudySummary, title: str, x_name: str, y_name: str) -> go.Figure:
    """Draw one column of the scored proposals against another, with the limits of both."""
    x = {trial.name: trial.values[x_name] for trial in study.scored if x_name in trial.values}
    chart = _scatter(study, title, NOTE + _unscored(study), x_name, y_name, x)
    limit = {"line": {"dash": "longdash", "width": 2}}
    if x_name in study.limits:
        x_limit = study.limits[x_name]
        chart.add_vline(x_limit, **limit)
        chart.add_annotation(text=f"limit {x_limit:,.6g}", x=x_limit, y=1, yref="paper", yanchor="bottom")
    if y_name in study.limits:
        y_limit = study.limits[y_name]
        chart.add_hline(y_limit, **limit)
        chart.add_annotation(
            text=f"limit {y_limit:,.6g}", x=0, xref="paper", xanchor="left", y=y_limit, yanchor="bottom"
        )
    return chart


def _scatter(
    study: StudySummary, title: str, note: str, x_name: str, y_name: str, x: Mapping[str, float],
    background: Sequence[go.Scatter] = (),
) -> go.Figure:  # fmt: skip
    shown = [trial for trial in study.scored if trial.name in x]
    y = {trial.name: trial.values[y_name] for trial in shown}
    include = {name: [study.limits[name]] if name in study.limits else [] for name in (x_name, y_name)}
    return figure(
        title, note, 340, [*background, *markers(shown, kinds_of(study), x, y, x_name, y_name)],
        xaxis={"title": {"text": x_name}, "range": list(padded([*x.values(), *include[x_name]])), "nticks": 5},
        yaxis={"title": {"text": y_name}, "range": list(padded([*core(list(y.values())), *include[y_name]]))},
    )  # fmt: skip


def markers(
    trials: Sequence[ProposalSummary], kinds: Mapping[str, str], x: Mapping[str, Any], y: Mapping[str, float],
    x_name: str, y_name: str,
) -> list[go.Scatter]:  # fmt: skip
    """Return one trace per kind of proposal."""
    traces = []
    for kind, look in KINDS.items():
        names = [trial.name for trial in trials if kinds[trial.name] == kind]
        traces.append(
            go.Scatter(
                x=[x[name] for name in names], y=[y[name] for name in names], mode="markers", name=kind, cliponaxis=False,
                marker={
                    "symbol": look.symbol, "color": look.color, "size": look.size, "line": {"width": 2, "color": look.color},
                },
                hovertext=[
                    f"{safe(name)}<br>{safe(x_name)} {value_text(x[name])}<br>{safe(y_name)} {y[name]:,.6g}" for name in names
                ],
                hoverinfo="text",
            )
        )  # fmt: skip
    return traces

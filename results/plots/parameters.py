"""Charts of the parameters of a search: importances, parallel coordinates, slices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from results.loading.study import StudySummary
from results.plots.search import KINDS, NOTE, kinds_of, markers, value_text
from results.plots.style import COLORS, GREY, core, empty, figure, padded, safe, short

_MOST_PARAMETERS, _MOST_SLICES, _SLICE_COLUMNS = 15, 9, 3
_LOG_RATIO = 30  # a parameter whose values differ by at least this factor has a logarithmic axis


def importance_plot(study: StudySummary) -> go.Figure:
    """Draw the importances as bars, the largest first."""
    title = "Parameter importances"
    if not study.importances:
        return empty(title, "too few feasible proposals to tell")
    bars = sorted(study.importances.items(), key=lambda bar: -bar[1])[:_MOST_PARAMETERS]
    ticks, shares = list(range(len(bars))), [share for _, share in bars]
    trace = go.Bar(
        x=shares, y=ticks, orientation="h", marker={"color": COLORS[0]}, width=0.6,
        text=[f"{share:.0%}" for share in shares], textposition="outside", cliponaxis=False,
        hovertext=[safe(f"{name}: {share:.1%}") for name, share in bars], hoverinfo="text",
    )  # fmt: skip
    return figure(
        title,
        "PED-ANOVA: how much the best proposals differ from all others in each parameter.",
        60 + 26 * len(bars),
        [trace],
        xaxis={"tickformat": ".0%", "range": [0, 1.15 * max(shares) or 1], "nticks": 5},
        yaxis={
            "tickvals": ticks, "ticktext": [short(name, 28) for name, _ in bars],
            "range": [len(bars) - 0.4, -0.6], "showgrid": False,
        },
    )  # fmt: skip


def parallel_plot(study: StudySummary) -> go.Figure:
    """Draw a line for each scored proposal across its parameters and its first objective, each axis from low to high."""
    title, scored, keys = "Parameters of every proposal", study.scored, study.parameters[:_MOST_PARAMETERS]
    if not scored or not keys or not study.objectives:
        return empty(title, "no proposal has been scored yet")
    objective = next(iter(study.objectives))
    axes = [_Axis.of(key, [trial.params.get(key) for trial in scored]) for key in keys]
    axes.append(_Axis.of(objective, [trial.values[objective] for trial in scored]))
    kinds = kinds_of(study)
    traces = []
    for trial in sorted(scored, key=lambda trial: list(KINDS).index(kinds[trial.name])):
        kind, values = KINDS[kinds[trial.name]], [*(trial.params.get(key) for key in keys), trial.values[objective]]
        shares = [axis.share(value) for axis, value in zip(axes, values, strict=True)]
        traces.append(
            go.Scatter(
                x=list(range(len(axes))), y=shares, mode="lines+markers", name=safe(trial.name), cliponaxis=False,
                line={"color": kind.color, "width": kind.line_px, "dash": kind.dash}, connectgaps=True,
                marker={"symbol": kind.symbol, "color": kind.color, "size": kind.size - 2}, hoverinfo="text",
                hovertext=[f"{safe(trial.name)}<br>{safe(a.name)} {value_text(v)}" for a, v in zip(axes, values, strict=True)],
            )
        )  # fmt: skip
    chart = figure(
        title,
        f"{NOTE} Parameters by importance; on the right the objective. A line skips parameters that a proposal lacks.",
        340,
        traces,
        is_wide=True,
        xaxis={
            "tickvals": list(range(len(axes))), "ticktext": [short(axis.name.rpartition(".")[2], 18) for axis in axes],
            "range": [-0.3, len(axes) - 0.7],
        },
        yaxis={"visible": False, "range": [-0.12, 1.12]},
    )  # fmt: skip
    for i, axis in enumerate(axes):
        for y, text, anchor in ((0, axis.low, "top"), (1, axis.high, "bottom")):
            font = {"size": 10, "color": GREY}
            chart.add_annotation(text=short(text, 14), x=i, y=y, yanchor=anchor, yshift=6 if y else -6, font=font)
    return chart


def slice_plot(study: StudySummary) -> go.Figure:
    """Draw the first objective by each of the most important parameters."""
    title, scored, keys = "Objective by parameter", study.scored, study.parameters[:_MOST_SLICES]
    if not scored or not keys or not study.objectives:
        return empty(title, "no proposal has been scored yet")
    objective, kinds = next(iter(study.objectives)), kinds_of(study)
    num_rows = -(-len(keys) // _SLICE_COLUMNS)
    chart = figure(title, f"{NOTE} The most important parameter first.", 200 * num_rows + 30, is_wide=True)
    make_subplots(
        num_rows,
        _SLICE_COLUMNS,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.3 / num_rows,
        figure=chart,
    )
    for i, key in enumerate(keys):
        place = {"row": i // _SLICE_COLUMNS + 1, "col": i % _SLICE_COLUMNS + 1}
        own = [trial for trial in scored if key in trial.params]
        axis = _Axis.of(key, [trial.params[key] for trial in own])
        x = {trial.name: trial.params[key] if axis.is_number else value_text(trial.params[key]) for trial in own}
        traces = markers(own, kinds, x, {trial.name: trial.values[objective] for trial in own}, key, objective)
        chart.add_traces(traces, rows=place["row"], cols=place["col"])
        chart.update_xaxes(title={"text": short(key, 26)}, nticks=4, type=axis.plotly_type, **place)
    chart.update_yaxes(range=list(padded(core([trial.values[objective] for trial in scored]))), nticks=5)
    return chart.update_yaxes(title={"text": objective}, col=1)


@dataclass(frozen=True)
class _Axis:
    """One axis of parameter values. `low`, `high`: texts at its ends; `levels`: the choices unless all are numbers."""

    name: str
    ends: tuple[float, float]
    levels: tuple[str, ...]
    is_log: bool

    @classmethod
    def of(cls, name: str, values: Sequence[Any]) -> "_Axis":
        known = [value for value in values if value is not None]
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known):
            levels = tuple(sorted(set(map(value_text, known))))
            return cls(name, (0, max(len(levels) - 1, 1)), levels, is_log=False)
        low, high = (min(known), max(known)) if known else (0, 1)
        return cls(name, (low, high), (), is_log=low > 0 and high >= _LOG_RATIO * low)

    @property
    def is_number(self) -> bool:
        return not self.levels

    @property
    def plotly_type(self) -> str:
        return "category" if self.levels else "log" if self.is_log else "linear"

    @property
    def low(self) -> str:
        return self.levels[0] if self.levels else value_text(self.ends[0])

    @property
    def high(self) -> str:
        return self.levels[-1] if self.levels else value_text(self.ends[1])

    def share(self, value: Any) -> float | None:
        """Return where a value is between the ends, 0..1; None for a parameter that the proposal does not have."""
        if value is None:
            return None
        at = float(self.levels.index(value_text(value)) if self.levels else value)
        low, high = self.ends
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low) if high > low else 0.5

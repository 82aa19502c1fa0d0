"""The chart of a full cross of factors: how the effect of one factor depends on another, `interactions`."""

import itertools

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from results.analysis.effects import cell_means
from results.analysis.headline import headline_of
from results.loading.arm_labels import labelled
from results.plots.compared import label
from results.plots.labels import CHAR_PX, spread
from results.plots.style import COLORS, DASHES, empty, figure, padded, short
from trainer.errors import InputError

_MOST_PANELS = 3
_PANEL_PX, _LABEL_PX = 250, 13
_WIDTH_PX = 500  # a usual width of the chart
_NAME_CHARS = 14


def interactions(trials: pd.DataFrame, control: str | None = None, metric: str | None = None) -> go.Figure:
    """Draw a panel for each pair of factors: bpb by the level of one, a line for each level of the other.

    Arguments are those of `results.effects`; a run that is no full cross gives a chart that says so.
    """
    metric = metric or headline_of(trials)
    title = "Interaction of the factors"
    trials, control = labelled(trials, control)
    try:
        means = cell_means(trials, control=control, metric=metric)
    except InputError as error:
        return empty(title, error.fix)
    names = [name for name in means.columns if name not in ("arm", metric)]
    if means[metric].isna().any():
        return empty(title, "an arm of the cross has no result yet")
    pairs = list(itertools.combinations(names, 2))
    shown = pairs[:_MOST_PANELS]
    note = (
        "Parallel lines: the effects add up. Lines that converge or cross: one factor changes the effect of the other."
    )
    note += " Means over the seeds" + (" and the other factors." if len(names) > 2 else ".")
    note += f" The first {len(shown)} of {len(pairs)} pairs of factors." if len(shown) < len(pairs) else ""
    tables = [means.pivot_table(index=a, columns=b, values=metric, sort=False) for a, b in shown]
    y_range = padded([float(value) for table in tables for value in table.to_numpy().ravel()], 0.15)
    chart = figure(title, note, _PANEL_PX + 50, is_wide=len(shown) > 1)
    make_subplots(1, len(shown), shared_yaxes=True, horizontal_spacing=0.04, figure=chart)
    for col, (table, (a, b)) in enumerate(zip(tables, shown, strict=True), start=1):
        ends = [float(table[level].iloc[-1]) for level in table]
        heights = [(y_range[1] - end) / (y_range[1] - y_range[0]) * _PANEL_PX for end in ends]
        room = min(0.45, max(len(_tail(b)) + len(str(level)) + 3 for level in table) * CHAR_PX / _WIDTH_PX * len(shown))
        for i, (level, at, to) in enumerate(zip(table, heights, spread(heights, _LABEL_PX), strict=True)):
            values = [float(value) for value in table[level]]
            color, last = COLORS[i % len(COLORS)], len(values) - 1
            hover = [
                f"{short(a, 40)} = {short(str(x), 40)}<br>{short(b, 40)} = {short(str(level), 40)}<br>{y:.4f}"
                for x, y in zip(table.index, values, strict=True)
            ]
            line = go.Scatter(
                x=list(range(len(values))), y=values, mode="lines+markers", hovertext=hover, hoverinfo="text",
                line={"color": color, "dash": DASHES[i % len(DASHES)]}, marker={"size": 8, "color": color},
            )  # fmt: skip
            chart.add_trace(line, row=1, col=col)
            chart.add_annotation(
                text=f"{_tail(b)} {short(str(level), _NAME_CHARS)}", x=last, y=ends[i], xanchor="left", xshift=8,
                yshift=at - to, font={"color": color, "size": 11}, row=1, col=col,
            )  # fmt: skip
        chart.update_xaxes(
            title={"text": short(a, 40)}, tickvals=list(range(len(table))), showgrid=False, zeroline=False,
            ticktext=[short(str(level)) for level in table.index], range=[-0.25, (len(table) - 0.75) / (1 - room)],
            row=1, col=col,
        )  # fmt: skip
    chart.update_yaxes(range=list(y_range))
    return chart.update_yaxes(title={"text": label(metric)}, col=1)


def _tail(key: str) -> str:
    return short(key.rpartition(".")[2], _NAME_CHARS)

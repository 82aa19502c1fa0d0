"""The scatter plot of arms: a point per arm, a legend of all arms, labels where there is room."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from results.plots.labels import LINE_PX, MARKER_PX, place_labels
from results.plots.style import GREY, MOST_ARMS, Style, core, figure, listed, padded

ONLY_WIDE = "only wide"
"""`name` of an annotation that the report hides on narrow screens."""

_LEGEND_COLUMNS, _LEGEND_ROW_PX = 2, 19
_AXES_PX = 60  # tick labels and title of the x axis


@dataclass(frozen=True)
class Point:
    """One arm in a scatter plot. `low`, `high`: ends of its vertical bar; `is_hollow`: draw only the outline."""

    arm: str
    x: float
    y: float
    low: float
    high: float
    hover: str
    is_hollow: bool = False


def arm_scatter(
    title: str, note: str, points: Sequence[Point], style_of: Mapping[str, Style], first: Sequence[str], *,
    x_name: str, y_name: str, x_include: Sequence[float] = (), y_include: Sequence[float] = (),
    background: Sequence[go.Scatter] = (), height_px: int = 380,
) -> go.Figure:  # fmt: skip
    """Draw each arm as a point. A legend names all of them; labels name those with free space above or below.

    Args:
        first: arms that are labelled before the others.
        x_include, y_include: values that the axes must show in addition to the points.
        background: traces below the points.
    """
    kept = set(core([point.y for point in points]))
    near = [point for point in points if point.y in kept]
    x_range = padded([*x_include, *(point.x for point in near)], 0.12)
    y_range = padded([*y_include, *(value for point in near for value in (point.low, point.high))], 0.1)
    rank = {arm: i for i, arm in enumerate(first)}
    order = sorted(points, key=lambda point: (rank.get(point.arm, len(rank)), point.y))
    is_inside = [x_range[0] <= p.x <= x_range[1] and y_range[0] <= p.y <= y_range[1] for p in order]
    inside = [point for point, fits in zip(order, is_inside, strict=True) if fits]
    outside = [point for point, fits in zip(order, is_inside, strict=True) if not fits]
    shown, small = inside[:MOST_ARMS], [*inside[MOST_ARMS:], *outside[MOST_ARMS:]]
    named = [*shown, *outside[:MOST_ARMS]]
    if outside:
        note += f" Outside the axes, double-click to show: {listed([f'{p.arm} ({p.y:.4f})' for p in outside])}."
    if inside[MOST_ARMS:]:
        note += f" Small dots: the other {len(inside) - MOST_ARMS} arms."
    legend_px = _LEGEND_ROW_PX * -(-len(named) // _LEGEND_COLUMNS)
    chart = figure(
        title, note, height_px + legend_px,
        [*background, _dots(small), *(_marker(point, style_of[point.arm]) for point in reversed(named))],
        xaxis={"title": {"text": x_name}, "range": list(x_range)}, yaxis={"title": {"text": y_name}, "range": list(y_range)},
        showlegend=True,
        legend={
            "orientation": "h", "traceorder": "reversed", "font": {"size": 11}, "xref": "container", "x": 0,
            "yref": "container", "y": 0, "yanchor": "bottom", "entrywidth": 1 / _LEGEND_COLUMNS, "entrywidthmode": "fraction",
        },
    )  # fmt: skip
    ends, chars = [(p.x, p.low, p.high) for p in shown], [len(style_of[p.arm].label) for p in shown]
    for point, side in zip(shown, place_labels(ends, chars, x_range, y_range, height_px - _AXES_PX), strict=True):
        if side:
            chart.add_annotation(
                text=style_of[point.arm].label, x=point.x, y=point.high if side > 0 else point.low, name=ONLY_WIDE, borderpad=0,
                yshift=side * (MARKER_PX + LINE_PX) / 2,
            )  # fmt: skip
    return chart


def _dots(points: Sequence[Point]) -> go.Scatter:
    symbols = ["circle-open" if point.is_hollow else "circle" for point in points]
    return go.Scatter(
        x=[point.x for point in points], y=[point.y for point in points], mode="markers", showlegend=False,
        hovertext=[point.hover for point in points], hoverinfo="text",
        marker={"symbol": symbols, "size": 5, "color": GREY, "opacity": 0.6},
    )  # fmt: skip


def _marker(point: Point, style: Style) -> go.Scatter:
    return go.Scatter(
        x=[point.x], y=[point.y], name=style.label, mode="markers", hovertext=[point.hover], hoverinfo="text",
        marker={
            "symbol": f"{style.symbol}-open" if point.is_hollow else style.symbol, "color": style.color, "size": 11,
            "line": {"width": 2 if point.is_hollow else 0},
        },
        error_y={
            "type": "data", "symmetric": False, "array": [point.high - point.y], "arrayminus": [point.y - point.low],
            "thickness": 1, "width": 3,
        } if point.high > point.low else None,
    )  # fmt: skip

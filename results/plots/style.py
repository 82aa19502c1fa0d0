"""What the pictures have in common: templates, a style for every arm, labels that do not overlap, the empty picture.

Made to be read in light and dark, in print and without colour: every arm has a colour with a contrast of 3 or more on both
backgrounds, and a marker shape and a dash besides; names stand at the points and lines, so there is no legend to match.
A figure's heading and how to read it are in `figure.layout.meta`, as plain text, for those who set them themselves.
"""

import html
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from results.plots.labels import CHAR_PX, LINE_PX, MARKER_PX, PHONE_PX, WIDE_PX, Offset, place_labels

COLORS = ("#2f7fd6", "#d9730d", "#1f9468", "#d9483b", "#9061d8", "#0e8a9e", "#cc4a8c", "#877f0c")
GREY = "#7d8590"
"""For the control, and for lines that belong to no arm."""

_SYMBOLS = ("circle", "square", "triangle-up", "cross", "star", "triangle-down", "hexagon", "bowtie", "pentagon")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")  # their numbers have no divisor in common with the colours'
_FAR = 10
_NAME_CHARS = 21
MOST_ARMS = 40
"""More than so many rows or lines are no picture: the best are shown."""

ONLY_WIDE = "only wide"
"""`name` of an annotation for which a phone has no room."""


def _template(background: str, text: str, faint: str) -> go.layout.Template:
    axis = {
        "gridcolor": faint, "linecolor": faint, "zerolinecolor": GREY, "zerolinewidth": 1, "automargin": True,
        "nticks": 6, "title": {"standoff": 8},
    }  # fmt: skip
    return go.layout.Template(
        layout={
            "paper_bgcolor": background,
            "plot_bgcolor": background,
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": text},
            "title": {"x": 0.01, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 12}, "font": {"size": 16}},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": background, "font": {"color": text}, "align": "left"},
            "hovermode": "closest",
            "showlegend": False,
            "annotationdefaults": {"arrowcolor": GREY, "arrowhead": 0, "arrowwidth": 1, "showarrow": False},
            "shapedefaults": {"line": {"color": GREY, "width": 1.5}},
        }
    )


LIGHT = _template("#ffffff", "#1b1f24", "#e3e6ea")
DARK = _template("#16181d", "#e6e8eb", "#333842")


@dataclass(frozen=True)
class Style:
    color: str
    symbol: str
    dash: str


@dataclass(frozen=True)
class Point:
    """One arm in a plane. `low`, `high`: the range of y over its seeds; `is_open`: drawn hollow, as of another kind."""

    arm: str
    x: float
    y: float
    low: float
    high: float
    hover: str
    is_open: bool = False


def styles(arms: Sequence[str], control: str) -> dict[str, Style]:
    """A style for each arm, the same in every picture; the control is grey, solid, a diamond. 72 arms differ."""
    found = {control: Style(GREY, "diamond", "solid")}
    for i, arm in enumerate(arm for arm in arms if arm != control):
        found[arm] = Style(COLORS[i % len(COLORS)], _SYMBOLS[i % len(_SYMBOLS)], _DASHES[i % len(_DASHES)])
    return found


def short(name: str, chars: int = _NAME_CHARS) -> str:
    """A name for a label: its middle left out where it is long, and safe in plotly's markup."""
    half = (chars - 1) // 2
    return safe(name if len(name) <= chars else f"{name[: chars - 1 - half]}…{name[-half:]}")


def safe(text: str) -> str:
    """Plotly reads labels as HTML."""
    return html.escape(text, quote=False)


def listed(words: Sequence[str], most: int = 6) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def figure(
    title: str, note: str, height_px: int, traces: Sequence[go.Scatter | go.Bar] = (), **layout: Any
) -> go.Figure:
    """A figure in the light template. `height_px`: of everything but the title and the note above the picture."""
    lines = textwrap.wrap(note, 84)
    top = 44 + LINE_PX * len(lines)
    drawn = go.Figure(list(traces), layout={"template": LIGHT, **layout})
    return drawn.update_layout(
        title={"text": safe(title), "subtitle": {"text": safe("\n".join(lines)).replace("\n", "<br>")}},
        height=height_px + top,
        margin={"l": 10, "r": 16, "t": top, "b": 10},
        meta={"title": title, "note": note, "height_px": height_px},
    )


def empty(title: str, why: str) -> go.Figure:
    """A figure that says why there is nothing in it."""
    drawn = figure(title, "", 110, xaxis={"visible": False}, yaxis={"visible": False})
    text = safe("\n".join(textwrap.wrap(why, 56))).replace("\n", "<br>")
    drawn.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper")
    return drawn.update_layout(meta={"title": title, "note": why.rstrip("."), "height_px": 110, "is_empty": True})


def why_empty(drawn: go.Figure) -> str | None:
    meta = drawn.layout.meta
    return str(meta["note"]) if meta.get("is_empty") else None


def padded(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    """The range of an axis that shows all of these with room beside them; never of no width."""
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def core(values: Sequence[float]) -> list[float]:
    """The values without those few, a quarter at most, that alone make the range ten times as wide as all others."""
    middle = statistics.median(values)
    by_distance = sorted(values, key=lambda value: abs(value - middle))
    for num_kept in range(len(values) - 1, len(values) - 1 - len(values) // 4, -1):
        kept = by_distance[:num_kept]
        width = max(kept) - min(kept)
        if 0 < _FAR * width < max(values) - min(values):
            return kept
    return list(values)


def plane(
    title: str, note: str, points: Sequence[Point], look: Mapping[str, Style], first: Sequence[str] = (), *,
    x_range: tuple[float, float] | None = None, y_range: tuple[float, float] | None = None,
    extra: Sequence[go.Scatter] = (), height_px: int = 380, **layout: Any,
) -> go.Figure:  # fmt: skip
    """Arms as points with their names, where a name fits without covering another.

    Args:
        first: arms whose names are placed before the others'.
        x_range, y_range: of the axes; None: of the points.
        extra: traces below the points.
        layout: of the figure; `xaxis` and `yaxis` are given their ranges.
    """
    kept = set(core([point.y for point in points]))
    near = [point for point in points if point.y in kept]
    x_shown = x_range or padded([point.x for point in near], 0.12)
    y_shown = y_range or padded([value for point in near for value in (point.low, point.y, point.high)], 0.1)
    rank = {arm: i for i, arm in enumerate(first)}
    order: list[Point] = []
    beyond: list[Point] = []
    for point in sorted(points, key=lambda point: (rank.get(point.arm, len(rank)), point.y)):
        is_inside = x_shown[0] <= point.x <= x_shown[1] and y_shown[0] <= point.y <= y_shown[1]
        (order if is_inside else beyond).append(point)
    where, chars = [(point.x, point.y) for point in order], [len(short(point.arm)) for point in order]
    on_phone = place_labels(where, chars, x_shown, y_shown, height_px - 60, PHONE_PX)
    places = place_labels(where, chars, x_shown, y_shown, height_px - 60, WIDE_PX, on_phone)
    if beyond:
        note += f" Far outside; double-click shows all: {listed([f'{p.arm} ({p.y:.4f})' for p in beyond])}."
    crowd = order[MOST_ARMS:]
    if crowd:
        note += f" Small dots: the other {len(crowd)} arms."
    alone = [
        *((point, False) for point in beyond[:MOST_ARMS]),
        *((point, True) for point in reversed(order[:MOST_ARMS])),
    ]
    traces = [_marker(point, look[point.arm], is_inside=is_inside) for point, is_inside in alone]
    traces = [_dots([*crowd, *beyond[MOST_ARMS:]]), *traces]
    axes = {
        name: layout.pop(name, {}) | {"range": list(shown)} for name, shown in (("xaxis", x_shown), ("yaxis", y_shown))
    }
    drawn = figure(title, note, height_px, [*extra, *traces], **axes, **layout)
    for point, offset, phone_offset in zip(order, places, on_phone, strict=True):
        if offset:
            drawn.add_annotation(_name(point, offset, None if phone_offset else ONLY_WIDE))
    return drawn


def _name(point: Point, offset: Offset, name: str | None) -> dict[str, Any]:
    """The annotation that names a point; with a line to it where it stands apart."""
    is_apart = max(abs(offset[0]) - len(short(point.arm)) * CHAR_PX / 2, abs(offset[1]) - LINE_PX / 2) > MARKER_PX
    return {
        "text": short(point.arm), "x": point.x, "y": point.y, "name": name, "borderpad": 0, "font": {"size": 12},
        **({"ax": offset[0], "ay": offset[1], "showarrow": True, "standoff": 6} if is_apart
           else {"xshift": offset[0], "yshift": -offset[1]}),
    }  # fmt: skip


def _dots(points: Sequence[Point]) -> go.Scatter:
    """Too many to be told apart: one trace."""
    symbols = ["circle-open" if point.is_open else "circle" for point in points]
    return go.Scatter(
        x=[point.x for point in points], y=[point.y for point in points], mode="markers", hoverinfo="text",
        hovertext=[point.hover for point in points], marker={"symbol": symbols, "size": 5, "color": GREY, "opacity": 0.6},
    )  # fmt: skip


def _marker(point: Point, style: Style, *, is_inside: bool) -> go.Scatter:
    has_range = point.high > point.low
    return go.Scatter(
        x=[point.x],
        y=[point.y],
        name=safe(point.arm),
        mode="markers",
        cliponaxis=not is_inside,
        marker={
            "symbol": f"{style.symbol}-open" if point.is_open else style.symbol,
            "color": style.color,
            "size": 11,
            "line": {"width": 2 if point.is_open else 0},
        },
        error_y={
            "type": "data", "symmetric": False, "array": [point.high - point.y], "arrayminus": [point.y - point.low],
            "thickness": 1, "width": 3,
        } if has_range else None,
        hovertext=[point.hover],
        hoverinfo="text",
    )  # fmt: skip

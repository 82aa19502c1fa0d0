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

COLORS = ("#2f7fd6", "#d9730d", "#1f9468", "#d9483b", "#9061d8", "#0e8a9e", "#cc4a8c", "#877f0c")
GREY = "#7d8590"
"""For the control, and for lines that belong to no arm."""

_SYMBOLS = ("circle", "square", "triangle-up", "cross", "star", "triangle-down", "hexagon", "bowtie", "pentagon")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")  # their numbers have no divisor in common with the colours'
_FAR = 10
_NAME_CHARS = 21
_CHAR_PX, _LINE_PX, _MARKER_PX = 6.6, 15, 12  # of a label of 12 px, and of a marker
_AROUND_PX = {False: 22, True: 12}
"""What a name keeps clear of around another's marker: more where no line says whose name it is."""

WIDE_PX = (640, 800, 1000, 1250)
PHONE_PX = (260, 320, 400, 510, *WIDE_PX)
"""Widths of the drawn area for which names are placed: points move apart in a wider one, and a name on the left of one can
run into the name on the right of another."""

MOST_ARMS = 40
"""More than so many rows or lines are no picture: the best are shown."""

ONLY_WIDE = "only wide"
"""`name` of an annotation for which a phone has no room."""

_SIDES = ((1, -1), (1, 1), (-1, -1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1))  # of a point: right, below
_LEADS_PX = (0, 20, 40)  # between a point and its name; with a line where they do not touch
Offset = tuple[float, float]
"""From a point to the middle of its name, in pixels right and down."""


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
    top = 44 + _LINE_PX * len(lines)
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
    near = [point for point in points if point.y in core([point.y for point in points])]
    x_shown = x_range or padded([point.x for point in near], 0.12)
    y_shown = y_range or padded([value for point in near for value in (point.low, point.y, point.high)], 0.1)
    inside = [p for p in points if x_shown[0] <= p.x <= x_shown[1] and y_shown[0] <= p.y <= y_shown[1]]
    order = sorted(inside, key=lambda point: first.index(point.arm) if point.arm in first else len(first))
    where, chars = [(point.x, point.y) for point in order], [len(short(point.arm)) for point in order]
    on_phone = place_labels(where, chars, x_shown, y_shown, height_px - 60, PHONE_PX)
    places = place_labels(where, chars, x_shown, y_shown, height_px - 60, WIDE_PX, on_phone)
    beyond = [point for point in points if point not in inside]
    if beyond:
        note += f" Far outside; double-click shows all: {listed([f'{p.arm} ({p.y:.4f})' for p in beyond])}."
    traces = [_marker(point, look[point.arm], is_inside=point in inside) for point in [*beyond, *reversed(order)]]
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
    is_apart = max(abs(offset[0]) - len(short(point.arm)) * _CHAR_PX / 2, abs(offset[1]) - _LINE_PX / 2) > _MARKER_PX
    return {
        "text": short(point.arm), "x": point.x, "y": point.y, "name": name, "borderpad": 0, "font": {"size": 12},
        **({"ax": offset[0], "ay": offset[1], "showarrow": True, "standoff": 6} if is_apart
           else {"xshift": offset[0], "yshift": -offset[1]}),
    }  # fmt: skip


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


_Box = tuple[float, float, float, float]  # left, top, right, bottom


def place_labels(
    points: Sequence[tuple[float, float]], chars: Sequence[int], x_shown: tuple[float, float], y_shown: tuple[float, float],
    height_px: float, widths_px: Sequence[float], placed: Sequence[Offset | None] = (),
) -> list[Offset | None]:  # fmt: skip
    """For each point, where its name goes, None where it would cover another name or a marker.

    Args:
        points: in data coordinates, in the order in which names are placed; only the first of many get one.
        chars: the length of each name.
        height_px, widths_px: of the area; names must fit at each of these widths.
        placed: of each point, where its name stands already, if it does.
    """
    x_frac = [(x - x_shown[0]) / (x_shown[1] - x_shown[0]) for x, _ in points]
    y_px = [(y_shown[1] - y) / (y_shown[1] - y_shown[0]) * height_px for _, y in points]
    found: list[Offset | None] = list(placed) or [None] * len(points)

    def boxes(i: int, offset: Offset, wide: float, high: float) -> list[_Box]:
        return [_box(x_frac[i] * width + offset[0], y_px[i] + offset[1], wide, high) for width in widths_px]

    def is_free(own: list[_Box], others: Sequence[list[_Box]]) -> bool:
        is_inside = all(
            box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= height_px
            for box, width in zip(own, widths_px, strict=True)
        )
        return is_inside and not any(any(map(_overlap, own, other)) for other in others)

    around = {lead: [boxes(i, (0, 0), size, size) for i in range(len(points))] for lead, size in _AROUND_PX.items()}
    names = [boxes(i, offset, chars[i] * _CHAR_PX, _LINE_PX) for i, offset in enumerate(found) if offset]
    for i in range(min(len(points), MOST_ARMS)):
        if found[i]:
            continue
        wide = chars[i] * _CHAR_PX
        for lead_px in _LEADS_PX:
            markers = around[lead_px > 0]
            for right, below in _SIDES:
                far = _MARKER_PX / 2 + lead_px
                offset = right * (wide / 2 + far), below * (_LINE_PX / 2 + far)
                own = boxes(i, offset, wide, _LINE_PX)
                if found[i] is None and is_free(own, [*names, *markers[:i], *markers[i + 1 :]]):
                    found[i] = offset
                    names.append(own)
    return found


def _box(x: float, y: float, wide: float, high: float) -> _Box:
    return x - wide / 2, y - high / 2, x + wide / 2, y + high / 2


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions moved apart to be `gap` or more from each other, in the same order, as little as a sweep down and up can."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    moved = [positions[i] for i in order]
    for k in range(1, len(moved)):
        moved[k] = max(moved[k], moved[k - 1] + gap)
    shift = (moved[-1] - positions[order[-1]]) / 2 if moved else 0.0
    found = [0.0] * len(moved)
    for k, i in enumerate(order):
        found[i] = moved[k] - shift
    return found

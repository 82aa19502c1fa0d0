"""Parts shared by all charts: templates, a style per arm, axis ranges, the frame of a figure, the empty chart.

Charts are readable in light and dark mode, in print and without colour: every arm has a colour with a contrast of at least 3
on both backgrounds, and its own marker shape and dash. `figure.layout.meta` holds title and note as plain text.
"""

import html
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from results.loading.arm_labels import elided, shortened
from results.plots.labels import LINE_PX

COLORS = ("#2f7fd6", "#d9730d", "#1f9468", "#d9483b", "#9061d8", "#0e8a9e", "#cc4a8c", "#877f0c")
GREY = "#7d8590"
"""Colour of the control, and of lines that belong to no arm."""
MOST_ARMS = 40
"""Charts show at most this many arms in full."""

_SYMBOLS = ("circle", "square", "triangle-up", "cross", "star", "triangle-down", "hexagon", "bowtie", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")  # 5 and 9 have no common divisor with the number of colours
_OUTLIER_FACTOR = 10
NAME_CHARS = 16


def _template(background: str, text: str, faint: str) -> go.layout.Template:
    axis = {
        "gridcolor": faint, "linecolor": faint, "zerolinecolor": GREY, "zerolinewidth": 1, "automargin": True,
        "nticks": 6, "title": {"standoff": 8}, "exponentformat": "none", "separatethousands": True,
    }  # fmt: skip
    return go.layout.Template(
        layout={
            "paper_bgcolor": background, "plot_bgcolor": background,
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": text},
            "title": {"x": 0.01, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 12}, "font": {"size": 16}},
            "xaxis": axis, "yaxis": axis, "hovermode": "closest", "showlegend": False,
            "hoverlabel": {"bgcolor": background, "font": {"color": text}, "align": "left"},
            "annotationdefaults": {"arrowcolor": GREY, "arrowhead": 0, "arrowwidth": 1, "showarrow": False},
            "shapedefaults": {"line": {"color": GREY, "width": 1.5}},
        }
    )  # fmt: skip


LIGHT = _template("#ffffff", "#1b1f24", "#e3e6ea")
DARK = _template("#16181d", "#e6e8eb", "#333842")


@dataclass(frozen=True)
class Style:
    """How an arm is drawn. label: its name, shortened so that it differs from all others, and escaped."""

    color: str
    symbol: str
    dash: str
    label: str


def styles(arms: Sequence[str], control: str) -> dict[str, Style]:
    """Return a style for each arm, the same in every chart. The control is grey; the styles of 72 other arms differ."""
    label = {arm: safe(text) for arm, text in shortened(list(dict.fromkeys([control, *arms])), NAME_CHARS).items()}
    chosen = {control: Style(GREY, "diamond", "solid", label[control])}
    for i, arm in enumerate(arm for arm in arms if arm != control):
        chosen[arm] = Style(COLORS[i % len(COLORS)], _SYMBOLS[i % len(_SYMBOLS)], DASHES[i % len(DASHES)], label[arm])
    return chosen


def safe(text: str) -> str:
    """Escape a text for plotly, which reads labels as HTML."""
    return html.escape(text, quote=False)


def short(name: str, chars: int = NAME_CHARS) -> str:
    """Return an elided and escaped name for a label."""
    return safe(elided(name, chars))


def listed(words: Sequence[str], most: int = 6) -> str:
    """Join words by commas; after `most` words only count the rest."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def figure(
    title: str, note: str, height_px: int, traces: Sequence[go.Scatter | go.Bar] = (), *, is_wide: bool = False, **layout: Any
) -> go.Figure:  # fmt: skip
    """Return a figure in the light template.

    Args:
        height_px: without the title and the note above the chart.
        is_wide: the report gives it the whole width of the page; other charts stand in pairs.
    """
    top = 44 + LINE_PX * len(textwrap.wrap(note, 84))
    return go.Figure(list(traces), layout={"template": LIGHT, **layout}).update_layout(
        title={"text": safe(title), "subtitle": {"text": _wrapped(note, 84)}},
        height=height_px + top,
        margin={"l": 10, "r": 16, "t": top, "b": 10},
        meta={"title": title, "note": note, "height_px": height_px, "is_wide": is_wide},
    )


def empty(title: str, why: str) -> go.Figure:
    """Return a figure that shows only the reason why there is no chart."""
    blank = figure(title, "", 110, xaxis={"visible": False}, yaxis={"visible": False})
    blank.add_annotation(text=_wrapped(why, 56), x=0.5, y=0.5, xref="paper", yref="paper")
    return blank.update_layout(meta={"title": title, "note": why.rstrip("."), "height_px": 110, "is_empty": True})


def why_empty(chart: go.Figure) -> str | None:
    """Return the reason given to `empty`; None for a figure that shows data."""
    meta = chart.layout.meta
    return str(meta["note"]) if meta.get("is_empty") else None


def _wrapped(text: str, chars: int) -> str:
    return "<br>".join(map(safe, textwrap.wrap(text, chars)))


def padded(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    """Return an axis range that contains all values with a margin on both sides. Its width is never 0."""
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def core(values: Sequence[float]) -> list[float]:
    """Drop outliers: at most a quarter of the values, if without them the range is less than a tenth as wide."""
    middle = statistics.median(values)
    by_distance = sorted(values, key=lambda value: abs(value - middle))
    for num_kept in range(len(values) - 1, len(values) - 1 - len(values) // 4, -1):
        kept = by_distance[:num_kept]
        width = max(kept) - min(kept)
        if 0 < _OUTLIER_FACTOR * width < max(values) - min(values):
            return kept
    return list(values)

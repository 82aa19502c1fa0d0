"""Text columns that fit a given width: decimal points aligned, the least important columns hidden first."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

NONE = "–"
_ENTITY = re.compile(r"&(?=#?\w+;)")  # only this is read as a character; in `R&D` the sign stands for itself
Parts = tuple[str, ...]
"""A cell in parts, such as a mean and its spread. Each part is aligned with the same part of the other cells."""


@dataclass(frozen=True)
class TextColumn:
    """`heading`: one line, or several with newlines between."""

    heading: str
    cells: Sequence[Parts]

    def texts(self) -> list[str]:
        """Return the cells with each part padded to the widest of its kind."""
        widths = [max(map(len, parts)) for parts in zip(*self.cells, strict=True)]
        texts = [" ".join(p.rjust(w) for p, w in zip(parts, widths, strict=True) if w) for parts in self.cells]
        return [text if text.strip() else NONE for text in texts]

    def width(self) -> int:
        return max(map(len, (*self.heading.split("\n"), *self.texts())))


@dataclass(frozen=True)
class HideStep:
    """One step of narrowing a table: hide a column, or all of its parts but `keep`, under a new heading."""

    key: str
    name: str
    keep: slice | None = None
    heading: str = ""


def fit_columns(
    columns: Mapping[str, TextColumn],
    steps: Sequence[HideStep],
    width: int,
    total: Callable[[Sequence[TextColumn]], int],
) -> tuple[dict[str, TextColumn], list[str]]:
    """Apply `steps` in order until the table fits into `width`.

    Args:
        total: returns the width in characters of a table of these columns.
    Returns:
        The columns to show, and the names of what was hidden.
    """
    shown, hidden = dict(columns), []
    for step in steps:
        if total(list(shown.values())) <= width:
            break
        if step.key not in shown:
            continue
        hidden.append(step.name)
        cells = shown.pop(step.key).cells
        if step.keep is not None:
            shown[step.key] = TextColumn(step.heading, [parts[step.keep] for parts in cells])
    return {key: shown[key] for key in columns if key in shown}, hidden


def pipe_table(heading: Sequence[str], rows: Iterable[Sequence[object]], left: Collection[str] | None = None) -> str:
    """Return a Markdown table. `left`: headings of the columns that are aligned left; None: all."""
    cells = [[markdown_text(str(cell)) for cell in row] for row in rows]
    align = ["left" if left is None or name in left else "right" for name in heading]
    return str(tabulate(cells, [*map(one_line, heading)], "pipe", disable_numparse=True, colalign=align))


def one_line(heading: str) -> str:
    return heading.replace("-\n", "-").replace("\n", " ")


def markdown_text(text: str) -> str:
    """Return a text in one line that may stand in a Markdown table, and that no viewer reads as HTML."""
    escaped = _ENTITY.sub("&amp;", text).replace("<", "&lt;")
    return " ".join(escaped.split()).replace("|", r"\|")


def number(value: float | str | None, spec: str, unknown: str = NONE) -> str:
    """Format a cell; `unknown` for None."""
    return unknown if value is None else format(value, spec)


def half_width(low: float | None, high: float | None, spec: str = ".4f") -> str:
    """Format a confidence interval as ±, empty without one."""
    return "" if low is None or high is None else f"±{(high - low) / 2:{spec}}"

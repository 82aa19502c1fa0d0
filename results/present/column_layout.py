"""Columns of text that fit into a given width: decimal points below each other, and a word about what was left out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

NONE = "–"
WIDTH = 120
"""Characters of a line of a table in Markdown and LaTeX. Only names of arms may make it wider: they cannot be folded."""

Parts = tuple[str, ...]
"""A cell's text in parts that are aligned among themselves below each other, such as a mean and its spread."""


@dataclass(frozen=True)
class Column:
    """`heading`: lines that stand below each other, or behind each other in a table whose heading is one line."""

    heading: tuple[str, ...]
    cells: Sequence[Parts]

    @property
    def heading_text(self) -> str:
        return " ".join(self.heading).replace("- ", "-")

    def texts(self) -> list[str]:
        """Each part padded to the widest of its kind, so that digits stand below digits."""
        widths = [max(map(len, parts)) for parts in zip(*self.cells, strict=True)]
        texts = [" ".join(p.rjust(w) for p, w in zip(parts, widths, strict=True) if w) for parts in self.cells]
        return [text if text.strip() else NONE for text in texts]

    def width(self) -> int:
        return max(map(len, (*self.heading, *self.texts())))


@dataclass(frozen=True)
class Cut:
    """What goes when a table is too wide: all of a column, or all but some parts, under another heading."""

    key: str
    lost: str
    keep: slice | None = None
    heading: tuple[str, ...] = ()


def fit(
    columns: Mapping[str, Column], cuts: Sequence[Cut], width: int, total: Callable[[Sequence[Column]], int]
) -> tuple[dict[str, Column], list[str]]:
    """The columns that fit, cut in the order of `cuts`, and what was lost.

    Args:
        total: the width of a table of these columns, in characters.
    """
    shown, lost = dict(columns), []
    for cut in cuts:
        if total(list(shown.values())) <= width:
            break
        if cut.key not in shown:
            continue
        lost.append(cut.lost)
        cells = shown.pop(cut.key).cells
        if cut.keep is not None:
            shown[cut.key] = Column(cut.heading, [parts[cut.keep] for parts in cells])
    return {key: shown[key] for key in columns if key in shown}, lost


def flat_width(columns: Sequence[Column]) -> int:
    """Of a table in Markdown as tabulate writes it: headings in one line with two blanks more, three between columns."""
    return sum(max(column.width(), len(column.heading_text) + 2) + 3 for column in columns) + 1

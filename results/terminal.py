"""The ablation table in a terminal: as wide as the screen allows, and it says which columns it had to leave out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from results.view import NONE, View, headers, view_run

_FIRST_TO_GO: tuple[tuple[str, int | None, tuple[str, ...], str], ...] = (
    # On a narrow screen: the column, from which part on it is kept (None: not at all), its new heading, what is lost.
    ("steps", None, (), "steps and step time"),
    ("float", None, (), "float bpb"),
    ("bytes", 1, ("% of", "cap"), "artifact bytes"),
    ("qat", 1, ("QAT", "covers"), "QAT on-step"),
    ("qat", None, (), "QAT coverage"),
    ("bytes", None, (), "% of cap"),
)
_GAP = 2  # blanks between columns
_STYLES = {"WIN": "bold green", "LOSS": "bold red", "INFEASIBLE": "bold red", "NOT COMPARABLE": "bold red"}


def print_rich(run_root: str | Path, control: str | None = None, console: Console | None = None) -> None:
    """Print the table of a run: question, a row per arm, what did not finish, a verdict per arm.

    Args:
        run_root: the run folder.
        control: the arm to compare with; None: that of sweep.yaml, else the first arm.
        console: where to; None: standard output.
    Raises:
        InputError: no run there, or `control` is not among its arms.
    """
    view = view_run(run_root, control)
    out = console or Console(highlight=False)
    out.print(Text(view.sweep, "bold"))
    if view.question:
        out.print(Text(view.question, "italic"))
    if not view.arms:
        out.print("No trials yet.")
        return
    columns, lost = _fit(_columns(view), out.width)
    out.print()
    out.print(_table(view, columns))
    if lost:
        out.print(Text(f"Too narrow for: {', '.join(lost)}.", "dim"))
    if view.unfinished:
        out.print(Text("\nWithout a number", "bold"))
        for arm, seed, status, reason in view.unfinished:
            out.print(_hanging(f"{arm} seed {seed}: {status}", reason, "red"))
    out.print()
    for line in view.arms:
        name, _, rest = line.sentence.partition(": ")
        out.print(_hanging(name, rest, _STYLES.get(line.verdict or "", "bold")))
    if view.pending:
        out.print(_hanging("pending", view.pending, "yellow"))
    for remark in view.remarks:
        out.print(_hanging("note", remark, "yellow"))


@dataclass(frozen=True)
class _Column:
    heading: tuple[str, ...]
    cells: list[tuple[str, ...]]

    def texts(self) -> list[str]:
        """Each part padded to the widest of its kind, so that digits stand below digits."""
        widths = [max(map(len, parts)) for parts in zip(*self.cells, strict=True)]
        texts = [" ".join(p.rjust(w) for p, w in zip(parts, widths, strict=True) if w) for parts in self.cells]
        return [text if text.strip() else NONE for text in texts]

    def width(self) -> int:
        return max(map(len, (*self.heading, *self.texts())))


def _columns(view: View) -> dict[str, _Column]:
    """Every column that says something for some arm."""
    columns = {key: _Column(lines, [arm.cells[key].parts for arm in view.arms]) for key, lines in headers(view).items()}
    if not any(covers for _, covers, _ in columns["qat"].cells):
        del columns["qat"]
    return columns


def _fit(columns: dict[str, _Column], width: int) -> tuple[dict[str, _Column], list[str]]:
    """The columns that fit into `width` characters, and what was left out."""
    shown, lost = dict(columns), []
    for key, keep_from, heading, loss in _FIRST_TO_GO:
        if sum(column.width() + _GAP for column in shown.values()) - _GAP <= width:
            break
        if key not in shown:
            continue
        lost.append(loss)
        cells = shown.pop(key).cells
        if keep_from is not None:
            shown[key] = _Column(heading, [parts[keep_from:] for parts in cells])
    return {key: shown[key] for key in columns if key in shown}, lost


def _table(view: View, columns: dict[str, _Column]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for key, column in columns.items():
        justify: Literal["left", "right"] = "left" if key == "arm" else "right"
        heading = "\n".join(column.heading)
        table.add_column(heading, justify=justify, vertical="bottom", no_wrap=key != "arm", overflow="fold")
    rows = zip(*(column.texts() for column in columns.values()), strict=True)
    for arm, texts in zip(view.arms, rows, strict=True):
        cells = [Text(arm.name if key == "arm" else text) for key, text in zip(columns, texts, strict=True)]
        table.add_row(*cells, style="bold" if arm.is_control else None)
    return table


def _hanging(name: str, text: str, style: str) -> Table:
    """`name  text` with the text's further lines indented below its first."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    grid.add_row(Text("•", style), Text.assemble((name, style), f": {text}"))
    return grid

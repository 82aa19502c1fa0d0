"""The ablation table in a terminal: as wide as the screen allows, and it says which columns it had to leave out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from results.present.column_layout import Column, fit
from results.present.table_model import Block, View, view_run

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
    compared, described = view.blocks
    _print_block(out, view, compared)
    for number, note in enumerate(view.footnotes, start=1):
        out.print(_hanging(f"[{number}]", note, "dim", colon=""))
    _print_block(out, view, described)
    if view.unfinished:
        out.print(Text("\nWithout a number", "bold"))
        for arm, seed, status, reason in view.unfinished:
            out.print(_hanging(f"{arm} seed {seed}: {status}", reason, "red"))
    if view.pending:
        out.print(_hanging("pending", view.pending, "yellow"))
    for remark in view.remarks:
        out.print(_hanging("note", remark, "yellow"))


def _print_block(out: Console, view: View, block: Block) -> None:
    columns, lost = fit(block.columns, block.cuts, out.width, _width)
    out.print()
    out.print(Text(block.title, "dim italic"))
    out.print(_table(view, columns))
    if lost:
        out.print(Text(f"Too narrow for: {', '.join(lost)}.", "dim"))


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width() + _GAP for column in columns) - _GAP


def _table(view: View, columns: dict[str, Column]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for key, column in columns.items():
        justify: Literal["left", "right"] = "left" if key == "arm" else "right"
        heading = "\n".join(column.heading)
        table.add_column(heading, justify=justify, vertical="bottom", no_wrap=key != "arm", overflow="fold")
    rows = zip(*(column.texts() for column in columns.values()), strict=True)
    for arm, texts in zip(view.arms, rows, strict=True):
        cells = [
            Text(arm.name if key == "arm" else text, _STYLES.get(arm.verdict or "", "") if key == "verdict" else "")
            for key, text in zip(columns, texts, strict=True)
        ]
        table.add_row(*cells, style="bold" if arm.is_control else None)
    return table


def _hanging(name: str, text: str, style: str, colon: str = ":") -> Table:
    """`name: text` with the text's further lines indented below its first."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    if colon:
        grid.add_row(Text("•", style), Text.assemble((name, style), f"{colon} {text}"))
    else:
        grid.add_row(Text(name, style), Text(text))
    return grid

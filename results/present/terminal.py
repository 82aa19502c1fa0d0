"""The table of a run in a terminal. Columns that do not fit are hidden and named."""

from collections.abc import Iterable, Sequence
from typing import Unpack

from rich.console import Console
from rich.table import Table
from rich.text import Text

from results.present.column_layout import TextColumn, fit_columns
from results.present.console import open_console
from results.present.effects_table import HEADINGS, effect_rows
from results.present.files import Chosen
from results.present.several_runs import Runs
from results.present.table_model import ArmTable, RunTable, build_table

_GAP = 2  # blanks between columns
_STYLES = {"WIN": "bold green", "LOSS": "bold red", "INFEASIBLE": "bold red", "NOT COMPARABLE": "bold red"}


def print_run(
    run: Runs,
    control: str | None = None,
    console: Console | None = None,
    *,
    wide: bool = False,
    **chosen: Unpack[Chosen],
) -> None:
    """Print question, tables of arms, footnotes, effects of factors and trials without a result.

    See `build_table` for the other arguments and errors.

    Args:
        console: None: standard output; without a terminal nothing is hidden or wrapped.
        wide: hide no columns; lines may be longer than the screen is wide.
    """
    table = build_table(run, control, **chosen)
    out = console or open_console()
    if wide and table.arms:
        out.width = max(out.width, *(_width(list(own.columns.values())) for own in table.tables))
    out.print(Text(table.sweep, "bold"))
    if table.question:
        out.print(Text(table.question, "italic"))
    if not table.arms:
        out.print("No trials yet.")
        return
    comparison, *others = table.tables
    _print_table(out, table, comparison)
    for number, note in enumerate(table.footnotes, start=1):
        out.print(_hanging(Text(f"[{number}]", "dim"), Text(note)))
    for other in others:
        _print_table(out, table, other)
    _print_effects(out, table)
    if table.lost:
        out.print(Text("\nTrials without a result", "bold"))
        for trial in table.lost:
            _print_item(out, f"{trial.arm} seed {trial.seed}: {trial.outcome}", trial.reason, "red")
    if table.pending:
        _print_item(out, "pending", table.pending, "yellow")
    for remark in table.remarks:
        _print_item(out, "note", remark, "yellow")


def _print_effects(out: Console, run_table: RunTable) -> None:
    rows, cautions = effect_rows(run_table)
    if not rows:
        return
    table = empty_table(HEADINGS)
    for column in table.columns[:2]:
        column.justify, column.no_wrap = "left", False
    for row in rows:
        table.add_row(*map(Text, row))
    out.print(Text("\neffects of the factors, each averaged over the others", "dim italic"))
    out.print(table)
    for caution in cautions:
        _print_item(out, "note", caution, "yellow")


def _print_table(out: Console, run_table: RunTable, arm_table: ArmTable) -> None:
    columns, hidden = fit_columns(arm_table.columns, arm_table.hide_steps, out.width, _width)
    table = empty_table(column.heading for column in columns.values())
    for arm, texts in zip(run_table.arms, zip(*(c.texts() for c in columns.values()), strict=True), strict=True):
        styles = [_STYLES.get(arm.verdict or "", "") if key == "verdict" else "" for key in columns]
        table.add_row(*map(Text, (arm.name, *texts[1:]), styles), style="bold" if arm.is_control else None)
    out.print()
    out.print(Text(arm_table.title, "dim italic"))
    out.print(table)
    if hidden:
        out.print(Text(f"Hidden at this width: {', '.join(hidden)} (use --wide).", "dim"))


def empty_table(headings: Iterable[str]) -> Table:
    """Return a table without rows. The column of the arms is aligned left, the others right."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for heading in headings:
        is_arm = heading == "arm"
        table.add_column(
            heading, justify="left" if is_arm else "right", vertical="bottom", no_wrap=not is_arm, overflow="fold"
        )
    return table


def _width(columns: Sequence[TextColumn]) -> int:
    return sum(column.width() + _GAP for column in columns) - _GAP


def _print_item(out: Console, name: str, text: str, style: str) -> None:
    out.print(_hanging(Text("•", style), Text.assemble((name, style), f": {text}")))


def _hanging(mark: Text, text: Text) -> Table:
    """Indent all lines of the text behind the mark."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    grid.add_row(mark, text)
    return grid

"""Published tables of the challenge: `results.published(975)`, and a block for `pgray table --with published:975`.

They are printed below a run's own table, each row with its caveat, and never enter the statistics. Data and sources:
`results/published/`.
"""

from importlib.resources import files
from typing import Literal

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from results.schema import COLUMNS, Dtype, Row, records, typed_frame
from trainer.errors import InputError
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.records.results import LISTED, METRICS

PULL_REQUESTS = ("51", "488", "975", "1002", "1032")
_EXTRA: dict[str, Dtype] = {"claimed_bpb": "Float64", "caveat": "string"}
_SHOWN = (
    # heading, column, format
    ("arm", "arm", ""),
    ("seed", "seed", ""),
    *((METRICS[name].label.replace("-", "-\n").replace(" ", "\n"), name, METRICS[name].spec) for name in LISTED),
    ("claimed\nbpb", "claimed_bpb", ".4f"),
    ("artifact\nbytes", "artifact_bytes", ",.0f"),
    ("steps", "steps", ",.0f"),
)


def published(pull_request: int | str) -> pd.DataFrame:
    """Return the published table of a pull request of openai/parameter-golf.

    Returns:
        The columns of `results.schema`, null where not published; then `claimed_bpb` (a score whose evaluation the source
        does not name) and `caveat` (what a reader must know).
    Raises:
        InputError: not one of `PULL_REQUESTS`.
    """
    name = str(pull_request)
    if name not in PULL_REQUESTS:
        raise InputError("published", "pull request", name, f"use one of {', '.join(PULL_REQUESTS)}")
    with files("results").joinpath(f"published/{name}.csv").open("rb") as file:
        rows = records(pd.read_csv(file))
    for row in rows:
        num_bytes = row["artifact_bytes"]
        row["is_within_cap"] = None if num_bytes is None else num_bytes <= ARTIFACT_CAP_BYTES
        row |= {"sweep": f"PR {name}", "source": f"published: PR {name}, {row['source']}"}
    return typed_frame(rows, {column.name: column.dtype for column in COLUMNS} | _EXTRA)


def read_with(values: list[str]) -> list[str]:
    """Return the pull requests of `--with published:975`. Raises InputError: another form, or no such table."""
    for value in values:
        kind, _, name = value.partition(":")
        if kind != "published" or name not in PULL_REQUESTS:
            known = ", ".join(f"published:{number}" for number in PULL_REQUESTS)
            raise InputError("--with", "table", value, f"use one of {known}")
    return [value.partition(":")[2] for value in dict.fromkeys(values)]


def as_records(pull_requests: list[str]) -> dict[str, list[Row]]:
    """Return pull request -> its rows in JSON types, for `pgray table --json`."""
    return {name: records(published(name)) for name in pull_requests}


def markdown(pull_request: str) -> str:
    """Return the table as Markdown, with the caveats as numbered notes."""
    headings, lines, notes = _block(pull_request)
    right = ["left" if heading == "arm" else "right" for heading in headings]
    names = [heading.replace("-\n", "-").replace("\n", " ") for heading in headings]
    table = tabulate(lines, names, "pipe", disable_numparse=True, colalign=right)
    numbered = "\n".join(f"{number}. {note}" for number, note in enumerate(notes, start=1))
    return f"## {_title(pull_request)}\n\n{table}\n\n{numbered}\n"


def print_published(pull_request: str, console: Console | None = None) -> None:
    """Print the table in a terminal."""
    out = console or Console(highlight=False)
    headings, lines, notes = _block(pull_request)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        is_arm = heading == "arm"
        justify: Literal["left", "right"] = "left" if is_arm else "right"
        table.add_column(heading, justify=justify, vertical="bottom", no_wrap=not is_arm, overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    out.print(Text(f"\n{_title(pull_request)}", "bold"))
    out.print(table)
    for number, note in enumerate(notes, start=1):
        out.print(Text(f"[{number}] {note}"))


def _title(pull_request: str) -> str:
    return f"Published: PR {pull_request} (results of others, not part of the statistics; ! = over the cap)"


def _block(pull_request: str) -> tuple[list[str], list[list[str]], list[str]]:
    """Return headings, cells and caveats, without the columns that are null in every row."""
    rows = records(published(pull_request))
    shown = [(h, c, spec) for h, c, spec in _SHOWN if any(row[c] is not None for row in rows)]
    lines = [[_cell(row, c, spec) for _, c, spec in shown] for row in rows]
    for number, line in enumerate(lines, start=1):
        line[0] += f" [{number}]"
    return [heading for heading, _, _ in shown], lines, [str(row["caveat"]) for row in rows]


def _cell(row: Row, column: str, spec: str) -> str:
    value = row[column]
    if value is None:
        return "–"
    over = "!" if column == "artifact_bytes" and row["is_within_cap"] is False else ""
    return format(value, spec) + over

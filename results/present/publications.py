"""Published tables of the challenge: `results.published(975)`, and a block for `pgray table --with published:975`.

They are printed below a run's own table, each row with its caveat, and never enter the statistics. Data and sources:
`results/published/`.
"""

from importlib.resources import files

import pandas as pd
from rich.console import Console
from rich.text import Text

from results.present.column_layout import number, pipe_table
from results.present.terminal import empty_table
from results.schema import COLUMNS, Dtype, records, typed_frame
from trainer.errors import InputError
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.records.results import LISTED, METRICS

_TITLE = "Published: PR {} (results of others, not part of the statistics; ! = over the cap)"
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
    known = {f"published:{name}": name for name in PULL_REQUESTS}
    for value in values:
        if value not in known:
            raise InputError("--with", "table", value, f"use one of {', '.join(known)}")
    return [known[value] for value in dict.fromkeys(values)]


def markdown(pull_request: str) -> str:
    """Return the table as Markdown, with the caveats as numbered notes."""
    headings, lines, notes = _block(pull_request)
    table = pipe_table(headings, lines, left=("arm",))
    numbered = "\n".join(f"{i}. {note}" for i, note in enumerate(notes, start=1))
    return f"## {_TITLE.format(pull_request)}\n\n{table}\n\n{numbered}\n"


def print_published(pull_request: str, console: Console | None = None) -> None:
    """Print the table in a terminal."""
    out = console or Console(highlight=False)
    headings, lines, notes = _block(pull_request)
    table = empty_table(headings)
    for line in lines:
        table.add_row(*map(Text, line))
    out.print(Text(f"\n{_TITLE.format(pull_request)}", "bold"), soft_wrap=not out.is_terminal)
    out.print(table)
    for i, note in enumerate(notes, start=1):
        out.print(Text(f"[{i}] {note}"), soft_wrap=not out.is_terminal)


def _block(pull_request: str) -> tuple[list[str], list[list[str]], list[str]]:
    """Return headings, cells and caveats, without the columns that are null in every row."""
    rows = records(published(pull_request))
    shown = [(h, c, spec) for h, c, spec in _SHOWN if any(row[c] is not None for row in rows)]
    lines = []
    for i, row in enumerate(rows, start=1):
        name, *cells = (
            number(row[column], spec) + ("!" if column == "artifact_bytes" and row["is_within_cap"] is False else "")
            for _, column, spec in shown
        )
        lines.append([f"{name} [{i}]", *cells])
    return [heading for heading, _, _ in shown], lines, [str(row["caveat"]) for row in rows]

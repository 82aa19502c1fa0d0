"""`pgray table`: the ablation table of a run, on screen or in a file format."""

import enum
import sys
from typing import Annotated

import typer

from pgray.cli.options import ControlOption, JsonOption, RunArgument, print_json
from results.present import files, publications
from trainer.errors import InputError


class Format(enum.StrEnum):
    md = "md"
    csv = "csv"
    json = "json"
    latex = "latex"
    parquet = "parquet"


def table(
    run: RunArgument,
    form: Annotated[
        Format | None, typer.Option("--format", help="Print this format instead of the table on screen.")
    ] = None,
    control: ControlOption = None,
    published_names: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="published:PR", help="Add that pull request's table below, with caveats. Repeatable."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    published = publications.read_with(published_names or [])
    if published and form not in (None, Format.md):
        raise InputError("--with", "--format", form, "use --with on screen, or with --format md or --json")
    control = control or None  # `--control "$UNSET"` is an empty string
    if form is not None:
        rendered = files.render(run, form.value, control)
        if isinstance(rendered, bytes):  # parquet
            sys.stdout.buffer.write(rendered)
        else:
            print("\n".join([rendered, *map(publications.markdown, published)]).rstrip("\n"))
    elif as_json:
        others = {"published": publications.as_records(published)} if published else {}
        print_json(files.overview(run, control) | others)
    else:
        files.print_rich(run, control)
        for pull_request in published:
            publications.print_rich(pull_request)

"""`pgray table`: the ablation table of a run, on screen or in a file format. `pgray report`: all of it as one HTML file."""

import sys
from typing import Annotated, Literal

import typer

from pgray.cli.options import ControlOption, JsonOption, RunArgument, RunsArgument, print_json
from pgray.cli.streams import print_file
from results.present import files, publications, terminal
from results.schema import records
from trainer.errors import InputError

Format = Literal["md", "csv", "json", "latex", "parquet"]


def table(
    run: RunsArgument,
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
    metric: Annotated[
        str | None, typer.Option(help="Metric to compare by. Default: the best that all finished trials have.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Show these columns, for example mean,delta,verdict,quant_gap,steps."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Order the arms by a column; -COLUMN: from high to low.")
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="Show all columns, on lines of any length.")] = False,
    as_json: JsonOption = False,
) -> None:
    published = publications.read_with(published_names or [])
    if published and form not in (None, "md"):
        raise InputError("--with", "--format", form, "use --with on screen, or with --format md or --json")
    control = control or None  # `--control "$UNSET"` is an empty string
    names = [name.strip() for name in (columns or "").split(",") if name.strip()]
    chosen: files.Chosen = {"metric": metric or None, "sort": sort or None, "columns": names}
    if form == "parquet":
        sys.stdout.buffer.write(files.render_parquet(run, control, **chosen))
    elif form is not None:
        rendered = files.render(run, form, control, **chosen)
        print_file("\n".join([rendered, *map(publications.markdown, published)]))
    elif as_json:
        others = {"published": {name: records(publications.published(name)) for name in published}} if published else {}
        print_json(files.overview(run, control, **chosen) | others)
    else:
        terminal.print_run(run, control, wide=wide, **chosen)
        for pull_request in published:
            publications.print_published(pull_request)


def report(
    run: RunArgument,
    control: ControlOption = None,
    opens: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    from results.report.html import write_report  # Plotly takes a second

    path = write_report(run, control or None).absolute()
    if as_json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        print(path)
    if opens:
        typer.launch(path.as_uri())

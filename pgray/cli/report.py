"""`pgray report`: the run as one HTML file."""

import json
from typing import Annotated

import typer

from pgray.cli.inspect import JsonOption, RunArgument


def add_to(app: typer.Typer) -> None:
    app.command()(report)


def report(
    run: RunArgument,
    control: Annotated[str | None, typer.Option(help="Arm to compare with; default: the sweep's control.")] = None,
    opens: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write RUN/report.html: table, pictures, configs, failures, cost, provenance in one file that needs no network."""
    from results.report.html import write_report

    path = write_report(run, control or None).absolute()
    if as_json:
        print(json.dumps({"report": str(path), "bytes": path.stat().st_size}, indent=1))
    else:
        print(path)
    if opens:
        typer.launch(path.as_uri())

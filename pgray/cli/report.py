"""`pgray report`: write the run as one HTML file."""

from typing import Annotated

import typer

from pgray.cli.options import ControlOption, JsonOption, RunArgument, print_json
from results.report.html import write_report


def report(
    run: RunArgument,
    control: ControlOption = None,
    opens: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    path = write_report(run, control or None).absolute()
    if as_json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        print(path)
    if opens:
        typer.launch(path.as_uri())

"""`pgray init`: write an annotated sweep file to start from."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from pgray.cli.options import JsonOption, print_json
from trainer.errors import InputError
from trainer.records.files import write_text


def init(
    path: Annotated[
        Path, typer.Argument(metavar="SWEEP", help="The new sweep file, for example sweeps/late-qat.yaml.")
    ],
    as_json: JsonOption = False,
) -> None:
    if path.exists():
        raise InputError(str(path), "file", "exists", "give another name; nothing has been written")
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(str(path), "file", path.suffix or "no suffix", "give a name that ends with .yaml")
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "sweep"
    template = files("pgray.spec").joinpath("template.yaml").read_text(encoding="utf-8")
    write_text(path, template.replace("name: my-sweep", f"name: {name}"))
    if as_json:
        print_json({"path": str(path), "name": name})
    else:
        print(f"{path}: edit it, then: pgray plan {path}")

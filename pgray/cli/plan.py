"""`pgray init` and `pgray plan`: write a sweep file, check it, and forecast what a run would do."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from pgray.cli import options
from pgray.planning.decision import decide, decide_without_data
from pgray.planning.forecast import forecast
from pgray.planning.model_check import ModelCheck
from pgray.planning.planner import make_plan
from pgray.planning.render import print_plan
from pgray.planning.summary import summarize
from pgray.spec.sweep import Sweep
from trainer.errors import InputError
from trainer.records.files import write_text
from trainer.records.layout import RunLayout


def plan(
    sweep: options.SweepArgument,
    runs: options.RunsOption = Path("runs"),
    preset: options.PresetOption = None,
    seeds: options.SeedsOption = None,
    overrides: options.SetOption = None,
    without_data: Annotated[
        bool,
        typer.Option("--without-data", help="Plan on a machine without the data; every trial counts as not finished."),
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    show_plan(options.load_sweep(sweep, preset, seeds, overrides), runs, without_data=without_data, as_json=as_json)


def show_plan(loaded: Sweep, runs: Path, *, without_data: bool = False, as_json: bool = False) -> None:
    layout = RunLayout(runs.absolute() / loaded.name)
    planned = make_plan(loaded, layout=layout, reads_data=not without_data)
    with ModelCheck(planned.expansion.arms, loaded.origin) as check:
        decision = decide_without_data(planned) if without_data else decide(planned, layout)
        ahead = forecast(decision, layout)
        models = check.wait()
    if as_json:
        options.print_json(summarize(decision, ahead, models, runs / loaded.name))
    else:
        print_plan(decision, ahead, models, runs / loaded.name)


def init(
    path: Annotated[
        Path, typer.Argument(metavar="SWEEP", help="The new sweep file, for example sweeps/late-qat.yaml.")
    ],
    as_json: options.JsonOption = False,
) -> None:
    if path.exists():
        raise InputError(str(path), "file", "exists", "give another name; nothing has been written")
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(str(path), "file", path.suffix or "no suffix", "give a name that ends with .yaml")
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "sweep"
    template = files("pgray.spec").joinpath("template.yaml").read_text(encoding="utf-8")
    write_text(path, template.replace("my-sweep", name))
    if as_json:
        options.print_json({"path": str(path), "name": name})
    else:
        print(f"{path}: edit it, then: pgray plan {path}")

"""Arguments and options that several verbs share, and how their values are read."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pgray.spec.sweep import Sweep
from pgray.store.ledger import Ledger
from pgray.store.planned import PLANNED_FILE
from results.present.console import open_console
from trainer.errors import InputError
from trainer.presets.yamlfile import parse_yaml
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.records.text import nearest

_SEED_DIGITS, _SHOWN_CHARS = 10, 40

RUNS = Path("runs")
"""The usual folder of run folders."""


def find_run(run: Path) -> Path:
    """Return the run folder that an argument means: the path itself or, if that is none, the run of that name in runs/.

    Raises:
        InputError: there is neither.
    """
    named = RUNS / run
    if not is_run(run) and not run.is_absolute() and is_run(named):
        return named
    if not run.exists():
        near = nearest(run.name, [folder.name for folder in RUNS.glob("*") if is_run(folder)])
        fix = f"did you mean {near}?" if near else "pgray list shows all"
        raise InputError("RUN", "folder", str(run), f"no such run folder, and none of that name in runs/; {fix}")
    return run


def is_run(folder: Path) -> bool:
    layout = RunLayout(folder)
    paths = (layout.ledger, layout.imports, layout.driver_log, folder / PLANNED_FILE)
    return any(path.exists() for path in paths)


_RUN_HELP = "A run folder, or the name of one in runs/."
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help=_RUN_HELP, show_default=False, callback=find_run)]
RunsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN", help=_RUN_HELP, show_default=False, callback=lambda runs: [find_run(run) for run in runs]
    ),
]
SweepArgument = Annotated[Path, typer.Argument(metavar="SWEEP", help="The sweep file.", show_default=False)]
TrialArgument = Annotated[
    str, typer.Argument(metavar="TRIAL", help="A trial id, the start of one, or an arm.", show_default=False)
]
ControlOption = Annotated[
    str | None, typer.Option("--control", help="Arm to compare with. Default: the sweep's control.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of run folders.")]
AddressOption = Annotated[str | None, typer.Option(help="Ray cluster to run on. Default: this machine.")]
PresetOption = Annotated[
    str | None,
    typer.Option("--preset", help="Replace the sweep's preset and its machine; cpu-smoke runs any sweep on a laptop."),
]
SeedsOption = Annotated[str | None, typer.Option("--seeds", help="Replace the sweep's seeds, for example 1,2,3.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override for every arm. Repeatable.")
]


def load_sweep(path: Path, preset: str | None, seeds: str | None, overrides: list[str] | None) -> Sweep:
    """Read a sweep file and apply the options of the command line."""
    texts = split_pairs(overrides or [], "--set", "--set train.iterations=100")
    values = {key: parse_yaml(text, f"--set {key}") for key, text in texts.items()}
    return Sweep.from_yaml(path, preset=preset, seeds=parse_seeds(seeds), overrides=values)


def read_states(run: Path) -> dict[str, LedgerEntry]:
    """Return the last ledger entry of every trial. Raises InputError if `run` is not a run folder."""
    ledger = RunLayout(run).ledger
    if not ledger.is_file():
        raise InputError(
            "RUN", "folder", str(run), "not a run folder (no ledger.jsonl); give the path that pgray run printed"
        )
    return Ledger(ledger).states()


def print_json(record: object) -> None:
    print(json.dumps(record, indent=1, default=os.fspath))


def print_table(table: Table) -> None:
    """Print a table without a frame, and with all characters of every cell."""
    table.box, table.pad_edge = None, False
    for column in table.columns:
        column.overflow = "fold"
    open_console().print(table)


def print_line(text: str, style: str = "") -> None:
    """Print one line in a style, without markup and without wrapping."""
    open_console().print(Text(text, style=style), soft_wrap=True)


def split_pairs(texts: Iterable[str], option: str, example: str) -> dict[str, str]:
    """Split every `key=value`. Raises InputError if there is no value, or a key is given twice."""
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InputError(option, text, "no value", f"write key=value, such as {example}")
        if key in pairs:
            raise InputError(option, key, value, "given twice; give it once")
        pairs[key] = value
    return pairs


def parse_seeds(text: str | None) -> list[int] | None:
    """Parse `1,2,3`; None stays None."""
    if text is None:
        return None
    seeds = text.replace(" ", "").split(",")
    wrong = next(
        (seed for seed in seeds if not (seed.isascii() and seed.isdigit() and len(seed) <= _SEED_DIGITS)), None
    )
    if wrong is not None:
        shown = text if len(text) <= _SHOWN_CHARS else f"{wrong[:_SHOWN_CHARS]}..."
        fix = f"give whole numbers of at most {_SEED_DIGITS} digits with commas between, such as 1,2,3"
        raise InputError("--seeds", "seeds", shown, fix)
    return [int(seed) for seed in seeds]

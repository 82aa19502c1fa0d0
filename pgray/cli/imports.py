"""`pgray import` and `pgray show`: rows from other people's logs, and where any number came from."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgray.cli.inspect import JsonOption, RunArgument

if TYPE_CHECKING:
    from results.importers.store import StoredImport


def add_to(app: typer.Typer) -> None:
    app.command(name="import")(import_logs)
    app.command()(show)


def import_logs(
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG...", help="Logs of train_gpt.py, or submission.json files.")
    ],
    into: Annotated[Path, typer.Option("--into", metavar="RUN", help="A run folder; made where there is none.")],
    arm: Annotated[str, typer.Option("--arm", metavar="NAME", help="The arm that these runs belong to.")],
    seed: Annotated[int | None, typer.Option("--seed", help="Where the log does not say it.")] = None,
    only: Annotated[int | None, typer.Option("--only", metavar="N", help="Take the Nth run alone, from 1.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Other people's run logs become rows of a run folder. A value that cannot be told is null, with the reason."""
    from pgray.execution.run_lock import hold_lock
    from results.importers import read_logs
    from results.importers.store import plan_imports, read_imports, write_imports
    from results.loading.runs import current_trials
    from results.present.files import write_all
    from trainer.errors import InputError
    from trainer.records.layout import RunLayout

    runs = read_logs(logs)
    if only is not None:
        if not 1 <= only <= len(runs):
            raise InputError("--only", "run", only, f"these files hold {len(runs)} runs; count from 1")
        runs = [runs[only - 1]]
    layout = RunLayout(into)
    with hold_lock(into.absolute(), "import"):
        imports = plan_imports(runs, arm, seed, current_trials(into), read_imports(layout)[0])
        write_imports(layout, imports)
        write_all(into)
    if as_json:
        print(json.dumps({"run": str(into), "imported": [_record(stored) for stored in imports]}, indent=1))
        return
    for stored in imports:
        _print_import(stored)
    print(f"{len(imports)} in {layout.imports}; where every number came from: pgray show {into} TRIAL")


def _record(stored: "StoredImport") -> dict[str, Any]:
    run = stored.run
    return {
        "trial_id": stored.trial_id,
        "arm": stored.arm,
        "seed": stored.seed,
        "label": run.label,
        "columns": run.columns | {"seed": stored.seed},
        "sources": run.sources | {"seed": stored.seed_source},
        "nulls": {name: reason for name, reason in run.nulls.items() if name != "seed"},
        "claimed_bpb": run.claimed_bpb,
    }


def _print_import(stored: "StoredImport") -> None:
    from trainer.records.results import LISTED

    run = stored.run
    print(f"{stored.arm} seed {stored.seed}: {run.columns['status']}, {stored.trial_id}")
    for name in (*LISTED, "artifact_bytes", "steps", "qat_on_step"):
        known = run.columns.get(name)
        value = "null" if known is None else f"{known:.8g}" if isinstance(known, float) else str(known)
        print(f"  {name:<15} {value:<12} {run.nulls[name] if known is None else run.sources[name]}")
    for name in ("reason", "notes"):
        if name in run.columns:
            print(f"  {name}: {run.columns[name]}")


def show(
    run: RunArgument,
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial id or the start of one, or an arm.")],
    as_json: JsonOption = False,
) -> None:
    """Every column of a trial, and the file and line, or the record, that it came from."""
    from results.loading.sources import explain

    lines = explain(run, trial)
    if as_json:
        print(json.dumps(lines, indent=1))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("column", "value", "unit", box=None, padding=(0, 1))
    table.add_column("from", overflow="fold")  # a line number must not be cut off
    for line in lines:
        value = "null" if line["value"] is None else str(line["value"])
        table.add_row(line["column"], Text(value), line["unit"], Text(line["source"] or line["why"]))
    Console(highlight=False).print(table)

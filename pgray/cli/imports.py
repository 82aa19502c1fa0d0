"""`pgray import` and `pgray show`: rows from other people's logs, and the source of every number."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pgray.cli.options import JsonOption, RunArgument, TrialArgument, print_json, print_table
from pgray.execution.run_lock import hold_lock
from results.importers import read_logs
from results.importers.store import StoredImport, plan_imports, read_imports, write_imports
from results.loading.runs import current_trials
from results.loading.sources import trace_columns
from results.present.files import write_all
from trainer.errors import InputError
from trainer.records.layout import RunLayout
from trainer.records.results import LISTED
from trainer.records.text import count_of


def import_(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG", help="Logs of train_gpt.py, or submission.json files.")],
    into: Annotated[Path, typer.Option("--into", metavar="RUN", help="A run folder; created if missing.")],
    arm: Annotated[str, typer.Option("--arm", metavar="NAME", help="The arm that these runs belong to.")],
    seed: Annotated[int | None, typer.Option("--seed", help="Use this seed where the log has none.")] = None,
    only: Annotated[
        int | None, typer.Option("--only", metavar="N", help="Import the Nth run of the logs only, from 1.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    runs = read_logs(logs)
    if only is not None:
        if not 1 <= only <= len(runs):
            raise InputError("--only", "run", only, f"these files hold {count_of(len(runs), 'run')}; count from 1")
        runs = [runs[only - 1]]
    layout = RunLayout(into)
    with hold_lock(into.absolute(), "import"):
        imports = plan_imports(runs, arm, seed, current_trials(into), read_imports(layout)[0])
        write_imports(layout, imports)
        write_all(into)
    if as_json:
        print_json({"run": str(into), "imported": [_record(stored) for stored in imports]})
        return
    for stored in imports:
        _print_import(stored)
    print(f"{len(imports)} in {layout.imports}. To see the source of every number: pgray show {into} TRIAL")


def _record(stored: StoredImport) -> dict[str, Any]:
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


def _print_import(stored: StoredImport) -> None:
    run = stored.run
    print(f"{stored.arm} seed {stored.seed}: {run.columns['status']}, {stored.trial_id}")
    for name in (*LISTED, "artifact_bytes", "steps", "qat_on_step"):
        known = run.columns.get(name)
        value = "null" if known is None else f"{known:.8g}" if isinstance(known, float) else str(known)
        print(f"  {name:<15} {value:<12} {run.nulls[name] if known is None else run.sources[name]}")
    for name in ("reason", "notes"):
        if name in run.columns:
            print(f"  {name}: {run.columns[name]}")


def show(run: RunArgument, trial: TrialArgument, as_json: JsonOption = False) -> None:
    lines = trace_columns(run, trial)
    if as_json:
        print_json([asdict(line) for line in lines])
        return
    table = Table("column", "value", "unit")
    table.add_column("from", overflow="fold")  # a line number must not be cut off
    for line in lines:
        value = "null" if line.value is None else str(line.value)
        table.add_row(line.column, Text(value), line.unit, Text(line.source or line.why or ""))
    print_table(table)

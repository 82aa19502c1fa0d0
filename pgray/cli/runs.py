"""`pgray list`: every run folder with its verdict, trials and age."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from pgray.cli.options import RUNS, JsonOption, RunsOption, is_run, print_json, print_table
from pgray.execution.run_lock import is_held
from trainer.errors import InputError
from trainer.records.layout import RunLayout


def list_(runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    if not runs.is_dir():
        raise InputError("--runs", "folder", str(runs), "no such folder; give the folder of your run folders")
    found = [_about(folder) for folder in sorted(runs.iterdir()) if is_run(folder)]
    found.sort(key=lambda run: run["age_s"])
    if as_json:
        print_json(found)
        return
    table = Table("run", "age", "trials", "verdict")
    for run in found:
        counts = ", ".join(f"{count} {state}" for state, count in run["trials"].items())
        state = " (running)" if run["is_running"] else ""
        table.add_row(Text(run["run"] + state), _age(run["age_s"]), counts, Text(run["verdict"]))
    print_table(table)


def _about(folder: Path) -> dict[str, Any]:
    from results.present.table_model import build_table  # pandas takes half a second
    from results.schema import records

    layout = RunLayout(folder)
    changed = [path.stat().st_mtime for path in (layout.ledger, layout.imports, layout.driver_log) if path.exists()]
    about = {
        "run": folder.name,
        "path": str(folder),
        "age_s": time.time() - max(changed),
        "is_running": is_held(folder),
    }
    try:
        table = build_table(folder)
    except InputError as error:
        return {**about, "question": None, "trials": {}, "verdict": str(error)}
    trials = Counter(row["status"] for row in records(table.stored) if row["is_current"] is not False)
    verdicts: dict[str, list[str]] = {}
    for arm in table.arms:
        if arm.verdict not in (None, "CONTROL"):
            verdicts.setdefault(str(arm.verdict), []).append(arm.name)
    shown = "; ".join(f"{verdict}: {_named(arms)}" for verdict, arms in verdicts.items()) or "no comparison yet"
    return {**about, "question": table.question, "trials": dict(trials), "verdict": shown}


def _named(arms: list[str]) -> str:
    return ", ".join(arms) if len(arms) <= 3 else f"{len(arms)} arms"


def _age(seconds: float) -> str:
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size_s:
            return f"{seconds / size_s:.0f} {unit}"
    return f"{seconds:.0f} s"

"""`pgray status` and `pgray list`: the trials of a run, and all runs of a folder."""

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from pgray.cli.options import (
    RUNS,
    JsonOption,
    RunArgument,
    RunsOption,
    is_run,
    print_json,
    print_line,
    print_table,
    read_states,
)
from pgray.execution.run_lock import is_held
from pgray.store.process_records import read_driver
from trainer.errors import InputError
from trainer.records.events import read_events
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry, newest_trials, read_ledger
from trainer.records.states import TrialState


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    states = read_states(run)
    is_running = is_held(run)
    current = set(newest_trials(read_ledger(RunLayout(run).ledger)[0]).values())
    trials = [_trial_status(run, entry, is_running, name in current) for name, entry in states.items()]
    counts = Counter(trial["status"] for trial in trials)
    if as_json:
        driver = read_driver(run) if is_running else None
        print_json({"run": str(run), "driver": driver and asdict(driver), "counts": counts, "trials": trials})
        return
    table = Table("trial", "status", "step", "reason")
    for trial in trials:
        step = "" if trial["step"] is None else str(trial["step"])
        mark = "" if trial["is_current"] else ", superseded"
        table.add_row(Text(trial["trial_id"]), f"{trial['status']}{mark}", step, Text(trial["reason"] or ""))
    print_table(table)
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    superseded = len(trials) - len(current.intersection(states))
    summary += f"; {superseded} superseded by another configuration of the arm" if superseded else ""
    print_line(f"{summary}; {'a driver is running' if is_running else 'no driver is running'}")


def _trial_status(run: Path, entry: LedgerEntry, is_running: bool, is_current: bool) -> dict[str, Any]:
    """Return one trial of the output. `step`: the last one logged, while the trial is running."""
    step, reason = None, entry.reason
    if entry.state == TrialState.RUNNING:
        events = read_events(RunLayout(run).trained(entry.train_fingerprint).events)
        step = next((event.get("step") for event in reversed(events) if event.get("event") == "step"), None)
        if not is_running:
            reason = "its driver is gone; run the sweep again to resume it"
    same = entry.model_dump(include={"trial_id", "arm", "seed", "config_sha", "attempt", "failure_kind"})
    return {**same, "status": entry.state, "is_current": is_current, "step": step, "reason": reason}


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

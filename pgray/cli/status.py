"""`pgray status`: the status of every trial, and whether a driver is running."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from pgray.cli.options import JsonOption, RunArgument, print_json, print_line, print_table, read_states
from pgray.execution.run_lock import is_held
from pgray.store.process_records import read_driver
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

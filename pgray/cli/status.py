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
from pgray.scheduler.progress import duration
from pgray.store.planned import PLANNED_FILE, PlannedRow, num_proposals_to_come, read_planned
from pgray.store.process_records import read_driver
from results.loading.arm_labels import arm_labels
from results.loading.lookup import shown_ids, sweep_names
from trainer.errors import InputError
from trainer.records.events import read_events
from trainer.records.files import read_json
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry, newest_trials, read_ledger
from trainer.records.states import TrialState
from trainer.records.text import count_of

_HOW_FAR = ("step", "running_s", "num_exported", "num_exports", "wall_s")


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    layout = RunLayout(run)
    is_running = is_held(run)
    entries = read_ledger(layout.ledger)[0]
    planned = read_planned(run, (entry.trial_id for entry in entries))
    states = {} if planned and not layout.ledger.is_file() else read_states(run)
    current = {*newest_trials(entries).values(), *(row.trial_id for row in planned)}
    arms = [*(entry.arm for entry in states.values()), *(row.arm for row in planned)]
    labels = arm_labels(arms, sweep_names(layout))
    jobs: dict[str | None, list[str]] = {}
    for name, entry in states.items():
        jobs.setdefault(entry.job_id, []).append(name)
    trials = [_trial_status(layout, entry, is_running, jobs[entry.job_id]) for entry in states.values()]
    trials += [_planned_status(row, is_running) for row in planned]
    trials = [trial | {"label": labels[trial["arm"]], "is_current": trial["trial_id"] in current} for trial in trials]
    to_come = num_proposals_to_come(layout, entries)
    counts = Counter(trial["status"] for trial in trials)
    if as_json:
        driver = read_driver(run) if is_running else None
        about = {"run": str(run), "driver": driver and asdict(driver), "counts": counts}
        print_json({**about, "proposals_to_come": to_come, "trials": trials})
        return
    table = Table("trial", "status", "time", "step", "reason")
    names = shown_ids({trial["trial_id"]: trial["label"] for trial in trials})
    for trial in trials:
        mark = "" if trial["is_current"] else ", superseded"
        time_s = trial["wall_s"] if trial["running_s"] is None else trial["running_s"]
        took = "" if time_s is None else duration(time_s)
        state, reason = f"{trial['status']}{mark}", Text(trial["reason"] or "")
        table.add_row(Text(names[trial["trial_id"]]), state, took, _how_far(trial), reason)
    print_table(table)
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    superseded = sum(not trial["is_current"] for trial in trials)
    summary += f"; {superseded} superseded by another configuration of the arm" if superseded else ""
    summary += f"; {count_of(to_come, 'proposal')} to come" if to_come else ""
    print_line(f"{summary}; {'a driver is running' if is_running else 'no driver is running'}")


def _trial_status(layout: RunLayout, entry: LedgerEntry, is_running: bool, job: list[str]) -> dict[str, Any]:
    """Return one trial of the output. `job`: the ids of the trials of its job.

    `step`, `running_s`, `num_exported`, `num_exports`: of the job of a running trial: its last logged step, the time
    since its start, and how many of its trials are exported. `wall_s`: what a finished trial took itself.
    """
    reason, far = entry.reason, dict.fromkeys(_HOW_FAR)
    if entry.state == TrialState.RUNNING:
        trained = layout.trained(entry.train_fingerprint)
        events = read_events(trained.events)
        far["step"] = next((event.get("step") for event in reversed(events) if event.get("event") == "step"), None)
        if is_running:
            far["running_s"] = time.time() - entry.at
        else:
            reason = "its driver is gone; run the sweep again to resume it"
        if trained.record.exists():
            far["num_exports"], far["num_exported"] = len(job), sum(layout.trial(name).result.exists() for name in job)
    if entry.state == TrialState.FINISHED:
        far["wall_s"] = read_json(layout.trial(entry.trial_id).result).get("wall_s")
    same = entry.model_dump(include={"trial_id", "arm", "seed", "config_sha", "attempt", "failure_kind"})
    return {**same, "status": entry.state, **far, "reason": reason}


def _planned_status(row: PlannedRow, is_running: bool) -> dict[str, Any]:
    """Return a trial that the ledger lacks."""
    reason = "its driver is starting" if is_running else "its driver died at the start; run the sweep again"
    unknown = {"config_sha": None, "attempt": 0, "failure_kind": None}
    return {**asdict(row), **unknown, "status": "planned", **dict.fromkeys(_HOW_FAR), "reason": reason}


def _how_far(trial: dict[str, Any]) -> str:
    if trial["num_exports"] is not None:
        return f"exported {trial['num_exported']}/{trial['num_exports']}"
    return "" if trial["step"] is None else str(trial["step"])


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
    paths = (layout.ledger, layout.imports, layout.driver_log, folder / PLANNED_FILE)
    changed = [path.stat().st_mtime for path in paths if path.exists()]
    about = {
        "run": folder.name,
        "path": str(folder),
        "age_s": time.time() - max(changed, default=folder.stat().st_mtime),
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

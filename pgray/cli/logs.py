"""`pgray logs`: print or follow the log of a trial or of the driver."""

import re
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from pgray.cli.options import JsonOption, RunArgument, print_json, read_states
from pgray.execution.run_lock import is_held
from pgray.store.planned import num_proposals_to_come, read_planned
from results.loading.lookup import find_trial, sweep_names
from trainer.errors import InputError
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry, last_entries, read_ledger

_POLL_S = 0.5
_PROPOSAL = re.compile(r"t\d{3,}")


def logs(
    run: RunArgument,
    trial: Annotated[
        str | None,
        typer.Argument(metavar="TRIAL", help="A trial id, the start of one, or an arm. Default: the driver's log."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing until the trial, or the driver, has ended.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    layout, trial_id = RunLayout(run), None
    if trial is not None:
        trial_id = _find(run, trial, waits=follow and not as_json)
        log = layout.trial(trial_id).log
    elif not (log := layout.driver_log).is_file() and not (follow and is_held(run)):
        read_states(run)  # raises if this is not a run folder
        raise InputError(
            str(log), "driver log", "missing", "no driver has written one; pgray logs RUN TRIAL prints a trial's log"
        )
    if as_json:
        text = log.read_text(errors="replace") if log.exists() else ""
        print_json({"trial_id": trial_id, "path": str(log), "lines": text.splitlines()})
        return
    offset, is_announced = 0, False
    while True:
        # Asked before the file is read: what is written until the end is then still printed.
        has_ended = _has_ended(run, trial_id) if trial_id else not is_held(run)
        if log.exists():
            with log.open("rb") as file:
                offset = file.seek(0 if log.stat().st_size < offset else offset)  # smaller: the log was rotated
                offset += sys.stdout.buffer.write(file.read())
            sys.stdout.buffer.flush()
        elif trial_id and not is_announced:
            is_announced = True
            print(_why_no_log(run, trial_id, follow and not has_ended), file=sys.stderr)
        if not follow or has_ended:
            return
        time.sleep(_POLL_S)


def _find(run: Path, asked: str, *, waits: bool) -> str:
    """Return the id of the trial that is asked for: one of the ledger, or one that a driver is about to queue.

    Args:
        waits: wait for a proposal that the running search has still to make.
    Raises:
        InputError: not a run folder, or no such trial.
    """
    layout, is_announced = RunLayout(run), False
    while True:
        is_running = is_held(run)  # asked first: what its driver has queued until its end is then seen
        entries = read_ledger(layout.ledger)[0]
        states = last_entries(entries)
        planned = read_planned(run, states)
        if not planned:
            read_states(run)  # raises if this is not a run folder
        arms = {name: entry.arm for name, entry in states.items()} | {row.trial_id: row.arm for row in planned}
        try:
            return find_trial(asked, arms, sweep_names(layout))
        except InputError:
            if not (waits and is_running and _is_to_come(asked, entries, layout)):
                raise
        if not is_announced:
            is_announced = True
            print(f"The search has not proposed {asked} yet; waiting.", file=sys.stderr)
        time.sleep(_POLL_S)


def _is_to_come(asked: str, entries: list[LedgerEntry], layout: RunLayout) -> bool:
    if not _PROPOSAL.fullmatch(asked):
        return False
    proposed = {entry.arm for entry in entries if entry.changes is not None}
    return asked not in proposed and int(asked[1:]) < len(proposed) + num_proposals_to_come(layout, entries)


def _has_ended(run: Path, trial_id: str) -> bool:
    entry = last_entries(read_ledger(RunLayout(run).ledger)[0]).get(trial_id)
    return entry is not None and entry.state.is_terminal


def _why_no_log(run: Path, trial_id: str, waits: bool) -> str:
    entry = last_entries(read_ledger(RunLayout(run).ledger)[0]).get(trial_id)
    state = f"is {entry.state}" if entry else "is planned"
    driver = "" if is_held(run) else "; no driver is running"
    return f"{trial_id} has no log yet: it {state}{driver}{'; waiting' if waits else ''}"

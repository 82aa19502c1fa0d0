"""`pgray stop` and `pgray retry`: act on a run folder from any terminal."""

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Annotated, get_args

import typer

from pgray.cli.options import JsonOption, RunArgument, print_json, read_states
from pgray.cli.run import run_and_print
from pgray.execution.orphans import end_orphans
from pgray.execution.run_lock import hold_lock, is_held
from pgray.scheduler.driver_log import open_driver_log
from pgray.scheduler.ledger_writer import close_dead_jobs
from pgray.scheduler.provenance import launched_sweep
from pgray.store.ledger import RETRY_SOURCE, Ledger
from pgray.store.process_records import read_driver
from trainer.errors import FailureKind, InputError, PgrayError
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry, newest_trials
from trainer.records.states import TrialState
from trainer.records.text import count_of

_REACTION_S = 7.0  # a driver that reacts says so in its log at once
_END_S = 60.0  # for a driver that has reacted to end its jobs
_KINDS = ", ".join(get_args(FailureKind))


def stop(run: RunArgument, as_json: JsonOption = False) -> None:
    if not is_held(run):
        read_states(run)  # raises if this is not a run folder; a driver that starts Ray has written no ledger yet
    stopped, num_orphans = _stop(run.absolute())
    if as_json:
        print_json({"run": str(run), "stopped_driver": stopped, "ended_strays": num_orphans})
    else:
        outcome = f"Stopped driver {stopped}" if stopped else "No driver was running"
        fix = " Run the sweep again to resume it." if stopped or num_orphans else ""
        print(f"{outcome}; ended {count_of(num_orphans, 'leftover process')}.{fix}")


def retry(
    run: RunArgument,
    kind: Annotated[
        FailureKind | None, typer.Option(metavar="KIND", help=f"Only failures of this kind: {_KINDS}.")
    ] = None,
    runs_again: Annotated[
        bool, typer.Option("--run", help="Stop a driver that is running, and run the sweep again at once.")
    ] = False,
    address: Annotated[str | None, typer.Option(help="With --run: the Ray cluster. Default: this machine.")] = None,
    as_json: JsonOption = False,
) -> None:
    read_states(run)  # raises if this is not a run folder, before one is created for the lock
    sweep = launched_sweep(RunLayout(run)) if runs_again else None
    if sweep is not None and sweep.name != run.absolute().name:
        raise InputError(
            str(run), "folder", run.absolute().name, f"was renamed; --run needs it to be named {sweep.name}"
        )
    if sweep is not None and is_held(run):
        _stop(run.absolute())
    with hold_lock(run.absolute(), "retry"):
        chosen, num_failed = _queue_failed(run, kind)
    diverged = [entry.trial_id for entry in chosen if entry.failure_kind == "diverged"]
    if diverged:
        fix = "change the arm, or give it other seeds"
        which = f"{count_of(len(diverged), 'trial')} diverged, such as {diverged[0]}"
        print(f"warning: {which}: the same config and seed will diverge again; {fix}", file=sys.stderr)
    if sweep is not None:
        run_and_print(sweep, run.absolute().parent, address, as_json)
    elif as_json:
        print_json({"run": str(run), "queued": [entry.trial_id for entry in chosen], "will_diverge_again": diverged})
    else:
        again = "; run the sweep again" if chosen else ""
        print(f"Queued {len(chosen)} of {count_of(num_failed, 'failed trial')}{again}")


def _stop(run: Path) -> tuple[int | None, int]:
    """Stop the driver and all processes of a run, and write how its jobs ended. Returns its pid, and how many it left."""
    driver, stopped = read_driver(run), None
    if driver is not None and is_held(run):
        if driver.host != socket.gethostname():
            raise InputError(str(run), "driver", driver.host, "runs on another machine; stop it there")
        stopped = driver.pid
        if not _signal(run, stopped, signal.SIGTERM):
            print(f"Driver {stopped} does not react; killing it.", file=sys.stderr)
            _signal(run, stopped, signal.SIGKILL)
    with hold_lock(run, "stop"):
        layout = RunLayout(run)
        num_orphans = end_orphans(layout, grace_s=10)
        if any(entry.state == TrialState.RUNNING for entry in Ledger(layout.ledger).states().values()):
            # A copy of the sweep that cannot be read leaves it to the next run.
            with open_driver_log(layout.driver_log) as log, contextlib.suppress(PgrayError):
                close_dead_jobs(layout, launched_sweep(layout), log)
    return stopped, num_orphans


def _signal(run: Path, pid: int, number: signal.Signals) -> bool:
    """Send a signal to a run's driver. Returns whether it ended: soon, or later if its log shows that it has reacted."""
    log, started, sent_at = RunLayout(run).driver_log, time.monotonic(), time.time()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    while is_held(run):
        has_reacted = log.exists() and log.stat().st_mtime >= sent_at
        if time.monotonic() > started + (_END_S if has_reacted else _REACTION_S):
            return False
        time.sleep(0.1)
    return True


def _queue_failed(run: Path, kind: FailureKind | None) -> tuple[list[LedgerEntry], int]:
    """Queue failed trials again. Returns their last entries, and how many trials have failed in any way."""
    retryable = (TrialState.FAILED, TrialState.KILLED, TrialState.LOST)
    current = set(newest_trials(Ledger(RunLayout(run).ledger).entries()).values())
    failed = [e for name, e in read_states(run).items() if e.state in retryable and name in current]
    chosen = [entry for entry in failed if kind is None or entry.failure_kind == kind]
    queued = [
        entry.moved_to(TrialState.QUEUED, source=RETRY_SOURCE, reason=f"pgray retry; before: {entry.reason}")
        for entry in chosen
    ]
    Ledger(RunLayout(run).ledger).append(*queued)
    return chosen, len(failed)

"""`pgray stop` and `pgray retry`: act on a run folder from any terminal."""

import os
import signal
import socket
import time
from typing import Annotated, get_args

import typer

from pgray.cli.options import JsonOption, RunArgument, print_json, read_states
from pgray.execution.orphans import end_orphans
from pgray.execution.run_lock import hold_lock, is_held
from pgray.store.ledger import RETRY_SOURCE, Ledger
from pgray.store.process_records import read_driver
from trainer.errors import FailureKind, InputError
from trainer.records.layout import RunLayout
from trainer.records.ledger import newest_trials
from trainer.records.states import TrialState
from trainer.records.text import count_of

_STOP_TIMEOUT_S = 60.0
_KINDS = ", ".join(get_args(FailureKind))


def stop(run: RunArgument, as_json: JsonOption = False) -> None:
    read_states(run)
    run = run.absolute()
    driver = read_driver(run)
    stopped: int | None = None
    if is_held(run) and driver is not None:
        if driver.host != socket.gethostname():
            raise InputError(str(run), "driver", driver.host, "runs on another machine; stop it there")
        stopped = driver.pid
        os.kill(stopped, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while is_held(run) and time.monotonic() < deadline:
            time.sleep(0.1)
    with hold_lock(run, "stop") as dead_drivers:
        num_orphans = end_orphans(RunLayout(run), grace_s=10, dead_drivers=dead_drivers)
    if as_json:
        print_json({"run": str(run), "stopped_driver": stopped, "ended_strays": num_orphans})
    else:
        outcome = f"Stopped driver {stopped}" if stopped else "No driver was running"
        print(f"{outcome}; ended {count_of(num_orphans, 'leftover process')}. Run the sweep again to resume it.")


def retry(
    run: RunArgument,
    kind: Annotated[
        FailureKind | None, typer.Option(metavar="KIND", help=f"Only failures of this kind: {_KINDS}.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    retryable = (TrialState.FAILED, TrialState.KILLED, TrialState.LOST)
    read_states(run)  # raises if this is not a run folder, before one is created for the lock
    with hold_lock(run.absolute(), "retry"):
        current = set(newest_trials(Ledger(RunLayout(run).ledger).entries()).values())
        states = read_states(run)
        failed = [states[name] for name in states if states[name].state in retryable and name in current]
        chosen = [entry for entry in failed if kind is None or entry.failure_kind == kind]
        queued = [
            entry.moved_to(TrialState.QUEUED, source=RETRY_SOURCE, reason=f"pgray retry; before: {entry.reason}")
            for entry in chosen
        ]
        Ledger(RunLayout(run).ledger).append(*queued)
    if as_json:
        print_json({"run": str(run), "queued": [entry.trial_id for entry in chosen]})
    else:
        again = "; run the sweep again" if chosen else ""
        print(f"Queued {len(chosen)} of {count_of(len(failed), 'failed trial')}{again}")

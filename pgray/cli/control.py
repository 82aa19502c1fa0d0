"""`pgray stop` and `pgray retry`: act on a run folder from any terminal."""

import json
import os
import signal
import socket
import time
from typing import Annotated

import typer

from pgray.cli.inspect import JsonOption, RunArgument, read_states
from trainer.errors import FailureKind
from trainer.records.states import TrialState

_STOP_PATIENCE_S = 60.0


def add_to(app: typer.Typer) -> None:
    app.command()(stop)
    app.command()(retry)


def stop(run: RunArgument, as_json: JsonOption = False) -> None:
    """Stop a run's driver and all its jobs; it can be gone on with later. Leaves no process on this machine."""
    from pgray.execution.orphans import end_orphans
    from pgray.execution.run_lock import hold_lock, is_held, owner_of
    from trainer.errors import InputError
    from trainer.records.layout import RunLayout

    read_states(run)
    run = run.absolute()
    owner = owner_of(run)
    stopped: int | None = None
    if is_held(run) and owner is not None:
        if owner["host"] != socket.gethostname():
            raise InputError(str(run), "driver", owner["host"], "runs on another machine; stop it there")
        stopped = int(owner["pid"])
        os.kill(stopped, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_PATIENCE_S
        while is_held(run) and time.monotonic() < deadline:
            time.sleep(0.1)
    with hold_lock(run, "stop") as last_driver:
        num_strays = end_orphans(RunLayout(run), grace_s=10, last_driver=last_driver)
    if as_json:
        print(json.dumps({"run": str(run), "stopped_driver": stopped, "ended_strays": num_strays}))
    else:
        what = f"stopped driver {stopped}" if stopped else "no driver was at work"
        print(f"{what}; {num_strays} stray processes ended. Run the sweep again to go on.")


def retry(
    run: RunArgument,
    kind: Annotated[FailureKind | None, typer.Option(help="Only failures of this kind.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Queue failed trials again; the next `pgray run` of the sweep runs them. Their logs are kept in attempt-N/."""
    from pgray.execution.run_lock import hold_lock
    from pgray.store.ledger import Ledger
    from pgray.store.retries import RETRY_SOURCE
    from trainer.records.layout import RunLayout

    read_states(run)
    with hold_lock(run.absolute(), "retry"):
        failed = [
            entry
            for entry in read_states(run).values()
            if entry.state in (TrialState.FAILED, TrialState.KILLED, TrialState.LOST)
        ]
        wanted = [entry for entry in failed if kind is None or entry.failure_kind == kind]
        before = {entry.trial_id: f"retry asked for; before: {entry.reason}" for entry in wanted}
        queued = [e.moved_to(TrialState.QUEUED, source=RETRY_SOURCE, reason=before[e.trial_id]) for e in wanted]
        Ledger(RunLayout(run).ledger).append(*queued)
    if as_json:
        print(json.dumps({"run": str(run), "queued": [entry.trial_id for entry in wanted]}))
    else:
        print(f"{len(wanted)} of {len(failed)} failed trials queued{'; run the sweep again' if wanted else ''}")

"""`pgray logs`: print or follow the log of a trial or of the driver."""

import sys
import time
from typing import Annotated

import typer

from pgray.cli.options import JsonOption, RunArgument, print_json, read_states
from pgray.execution.run_lock import is_held
from results.loading.lookup import find_trial, sweep_names
from trainer.errors import InputError
from trainer.records.layout import RunLayout

_POLL_S = 0.5


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
        trial_id = find_trial(trial, {name: entry.arm for name, entry in read_states(run).items()}, sweep_names(layout))
        log = layout.trial(trial_id).log
    elif not (log := layout.driver_log).is_file():
        read_states(run)  # raises if this is not a run folder
        raise InputError(
            str(log), "driver log", "missing", "no driver has written one; pgray logs RUN TRIAL prints a trial's log"
        )
    if as_json:
        text = log.read_text(errors="replace") if log.exists() else ""
        print_json({"trial_id": trial_id, "path": str(log), "lines": text.splitlines()})
        return
    offset = 0
    while True:
        # Asked before the file is read: what is written until the end is then still printed.
        has_ended = read_states(run)[trial_id].state.is_terminal if trial_id else not is_held(run)
        if log.exists():
            with log.open("rb") as file:
                offset = file.seek(0 if log.stat().st_size < offset else offset)  # smaller: the log was rotated
                offset += sys.stdout.buffer.write(file.read())
            sys.stdout.buffer.flush()
        if not follow or has_ended:
            return
        time.sleep(_POLL_S)

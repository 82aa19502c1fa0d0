"""`pgray status`, `pgray table` and `pgray logs`: look at a run folder from any terminal, while it runs or after."""

import enum
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer.records.states import TrialState

if TYPE_CHECKING:
    from trainer.records.ledger import LedgerEntry

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
_FOLLOW_S = 0.5


class Format(enum.StrEnum):
    md = "md"
    csv = "csv"
    json = "json"
    latex = "latex"
    parquet = "parquet"


def add_to(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(table)
    app.command()(logs)


def read_states(run: Path) -> "dict[str, LedgerEntry]":
    """The last ledger entry of every trial. Raises InputError where `run` is not a run folder."""
    from pgray.store.ledger import Ledger
    from trainer.errors import InputError
    from trainer.records.layout import RunLayout

    layout = RunLayout(run)
    if not layout.ledger.is_file():
        raise InputError(
            "RUN", "folder", str(run), "not a run folder (no ledger.jsonl); give the path that pgray run printed"
        )
    return Ledger(layout.ledger).states()


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Where every trial of a run stands, and whether a driver is at work."""
    from pgray.execution.run_lock import is_held, owner_of

    states = read_states(run)
    is_running = is_held(run)
    trials = [_trial_status(run, entry, is_running) for entry in states.values()]
    counts = Counter(trial["status"] for trial in trials)
    if as_json:
        owner = owner_of(run) if is_running else None
        print(json.dumps({"run": str(run), "driver": owner, "counts": counts, "trials": trials}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = Table("trial", "status", "step", "reason", box=None, padding=(0, 1))
    for trial in trials:
        step = "" if trial["step"] is None else str(trial["step"])
        lines.add_row(Text(trial["trial_id"]), trial["status"], step, Text(trial["reason"] or ""))
    console = Console()
    console.print(lines)
    work = "a driver is at work" if is_running else "no driver is at work"
    console.print(Text(", ".join(f"{count} {state}" for state, count in counts.items()) + f"; {work}"))


def table(
    run: RunArgument,
    form: Annotated[
        Format | None, typer.Option("--format", help="md, csv, json, latex or parquet; default: screen.")
    ] = None,
    control: Annotated[str | None, typer.Option(help="Arm to compare with; default: the sweep's control.")] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", help="published:975 puts that pull request's table below, with caveats."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The ablation table of a run. `parquet` prints bytes: redirect it to a file."""
    from results.present import files as tables
    from results.present import publications
    from trainer.errors import InputError

    published = publications.read_with(beside or [])
    if published and form not in (None, Format.md):
        raise InputError(
            "--with", "--format", form, "goes with the screen, md or --json; csv and parquet hold trials alone"
        )
    control = control or None  # `--control "$UNSET"` asks for none
    if form is not None:
        rendered = tables.render(run, form.value, control)
        if isinstance(rendered, bytes):  # parquet
            sys.stdout.buffer.write(rendered)
        else:
            print("\n".join([rendered, *map(publications.markdown, published)]).rstrip("\n"))
    elif as_json:
        beside_it = {"published": publications.as_records(published)} if published else {}
        print(json.dumps(tables.overview(run, control) | beside_it, indent=1))
    else:
        tables.print_rich(run, control)
        for pull_request in published:
            publications.print_rich(pull_request)


def logs(
    run: RunArgument,
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial id or the start of one, or an arm.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the trial has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The log of a trial from its first line: everything that its job printed."""
    from trainer.records.layout import RunLayout

    found = _find_trial(run, trial)
    log = RunLayout(run).trial(found).log
    if as_json:
        text = log.read_text(errors="replace") if log.exists() else ""
        print(json.dumps({"trial_id": found, "path": str(log), "lines": text.splitlines()}, indent=1))
        return
    offset = 0
    while True:
        has_ended = read_states(run)[found].state.is_terminal  # asked before the last read
        if log.exists():
            with log.open("rb") as file:
                file.seek(offset)
                offset += sys.stdout.buffer.write(file.read())
            sys.stdout.buffer.flush()
        if not follow or has_ended:
            return
        time.sleep(_FOLLOW_S)


def _find_trial(run: Path, asked: str) -> str:
    from results.loading.lookup import find_trial

    return find_trial(asked, {name: entry.arm for name, entry in read_states(run).items()})


def _trial_status(run: Path, entry: "LedgerEntry", is_running: bool) -> dict[str, Any]:
    from trainer.records.events import read_events
    from trainer.records.layout import RunLayout

    step = None
    if entry.state == TrialState.RUNNING:
        events = read_events(RunLayout(run).trained(entry.train_fingerprint).events)
        step = next((event.get("step") for event in reversed(events) if event.get("event") == "step"), None)
    reason = entry.reason
    if entry.state == TrialState.RUNNING and not is_running:
        reason = "its driver is gone; run the sweep again to go on"
    return {
        "trial_id": entry.trial_id,
        "arm": entry.arm,
        "seed": entry.seed,
        "status": entry.state,
        "attempt": entry.attempt,
        "step": step,
        "failure_kind": entry.failure_kind,
        "reason": reason,
    }

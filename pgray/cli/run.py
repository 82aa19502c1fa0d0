"""`pgray run`: run the trials that are not finished, then print the table."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pgray.cli import options
from pgray.scheduler.driver import run_sweep
from pgray.scheduler.progress import ProgressReporter, TerminalProgress
from pgray.spec.sweep import Sweep
from trainer.records.layout import RunLayout
from trainer.records.states import TrialState


def run(
    sweep: options.SweepArgument,
    runs: options.RunsOption = Path("runs"),
    preset: options.PresetOption = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to run on. Default: this machine.")] = None,
    seeds: options.SeedsOption = None,
    overrides: options.SetOption = None,
    as_json: options.JsonOption = False,
) -> None:
    run_and_print(options.load_sweep(sweep, preset, seeds, overrides), runs, address, as_json)


def run_and_print(sweep: Sweep, runs: Path, address: str | None, as_json: bool) -> None:
    """Run a sweep, print its table, and exit with the exit code of the run."""
    outcome = run_sweep(sweep, runs, address=address, reporter=ProgressReporter() if as_json else TerminalProgress())
    root = outcome.run_root
    if as_json:
        options.print_json(
            {
                "run": str(root),
                "control": outcome.control,
                "trials": outcome.counts,
                "launched_jobs": outcome.num_launched_jobs,
                "launched_trials": outcome.num_launched_trials,
                "paused": outcome.paused,
                "exit_code": outcome.exit_code,
            }
        )
        raise typer.Exit(outcome.exit_code)

    from results.present.terminal import print_run  # pandas takes half a second, and a wrong sweep is refused before

    if RunLayout(root).ledger.exists():  # not if the run ended before anything was written
        print_run(root, outcome.control)
    notes = []
    if not (outcome.num_launched_jobs or outcome.paused or outcome.is_interrupted):
        is_all_finished = set(outcome.counts) <= {TrialState.FINISHED}
        notes.append(f"Nothing to run: all trials {'are finished' if is_all_finished else 'have ended'}.")
    if outcome.exit_code == 130:
        notes.append("Interrupted. Run the same command again to resume.")
    if outcome.exit_code == 3:
        notes.append(
            f"Some trials failed. See the reasons above and pgray logs; pgray retry {root} --run runs them again."
        )
    print(*notes, f"run folder: {root}", sep="\n", file=sys.stderr)
    raise typer.Exit(outcome.exit_code)

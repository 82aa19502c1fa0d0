"""`pgray run`: run the trials that are not finished, then print the table.

`pgray confirm` does so for the best arms of a run, on fresh seeds and with the control, as a sweep of their own.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pgray.cli import options
from pgray.cli.plan import show_plan
from pgray.cli.streams import ignoring_closed_output
from pgray.planning.confirmation import confirming_sweep, fresh_seeds, select_arms
from pgray.planning.planner import make_plan
from pgray.scheduler.driver import run_sweep
from pgray.scheduler.progress import ProgressReporter, TerminalProgress
from pgray.scheduler.provenance import launched_sweep
from pgray.spec.sweep import Sweep
from trainer.errors import InputError
from trainer.presets.yamlfile import parse_yaml
from trainer.records.layout import RunLayout
from trainer.records.states import TrialState


def run(
    sweep: options.SweepArgument,
    runs: options.RunsOption = Path("runs"),
    preset: options.PresetOption = None,
    address: options.AddressOption = None,
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
        with ignoring_closed_output():
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
        with ignoring_closed_output():
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


def confirm(
    run: options.RunArgument,
    top: Annotated[
        int | None, typer.Option(min=1, help="Number of best arms. Default: up to 3 without --arm.", show_default=False)
    ] = None,
    arm: Annotated[list[str] | None, typer.Option(metavar="NAME", help="An arm to run again. Repeatable.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", help="Fresh seeds, such as 11,12,13. Default: five that the run has not used."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new sweep. Default: RUN-confirm.")] = None,
    runs: Annotated[Path | None, typer.Option("--runs", help="Folder of run folders. Default: that of RUN.")] = None,
    address: options.AddressOption = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="Print the plan and stop.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    options.read_states(run)  # raises if this is not a run folder
    layout = RunLayout(run)
    plan = make_plan(launched_sweep(layout), layout=layout, reads_data=False)
    selection = select_arms(plan, layout, top, arm or [])
    chosen = options.parse_seeds(seeds) or fresh_seeds(selection.seeds)
    text = confirming_sweep(plan, layout, name or f"{plan.sweep.name}-confirm", selection, chosen)
    folder = runs or run.resolve().parent
    sweep = Sweep.from_text(text, f"pgray confirm {run}")
    _check_is_new(RunLayout(folder / sweep.name), sweep)
    if only_plan or not as_json:
        show_plan(sweep, folder, as_json=as_json)
    if not only_plan:
        run_and_print(sweep, folder, address, as_json)


def _check_is_new(layout: RunLayout, sweep: Sweep) -> None:
    """Raise InputError if the folder holds another sweep. The same one on other seeds is continued."""
    if not layout.sweep.is_file():
        return
    before, now = (
        parse_yaml(text, str(layout.sweep)) for text in (layout.sweep.read_text(encoding="utf-8"), sweep.text)
    )
    differing = [key for key in now if key != "seeds" and (not isinstance(before, dict) or before.get(key) != now[key])]
    if differing:
        fix = f"{layout.root} holds another sweep (differs in {', '.join(differing)}); give another --name"
        raise InputError("--name", "name", sweep.name, fix)

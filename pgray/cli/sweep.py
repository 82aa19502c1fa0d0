"""`pgray plan` and `pgray run`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pgray.spec.sweep import Sweep

SweepArgument = Annotated[Path, typer.Argument(metavar="SWEEP", help="The sweep file.", show_default=False)]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder that holds run folders.")]
PresetOption = Annotated[
    str | None,
    typer.Option(help="Use this preset and its machine, not the sweep's; cpu-smoke runs anything on a laptop."),
]
SeedsOption = Annotated[str | None, typer.Option(help="Seeds to run, as in 1,2,3, not the sweep's.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override for every arm; may be repeated.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


def add_to(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(run)


def plan(
    sweep: SweepArgument,
    runs: RunsOption = Path("runs"),
    preset: PresetOption = None,
    seeds: SeedsOption = None,
    overrides: SetOption = None,
    without_data: Annotated[
        bool, typer.Option("--without-data", help="Plan where the data is not: nothing counts as finished.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a sweep and say what a run would do. Launches nothing."""
    from pgray.planning.forecast import forecast
    from pgray.planning.model_check import start_model_check
    from pgray.planning.planner import decide, make_plan
    from pgray.planning.render import print_plan
    from pgray.planning.summary import summary_of, undecided
    from trainer.records.layout import RunLayout

    loaded = _load(sweep, preset, seeds, overrides)
    layout = RunLayout(runs.absolute() / loaded.name)
    planned = make_plan(loaded, layout=layout, reads_data=not without_data)
    with start_model_check(planned) as check:
        decision = undecided(planned) if without_data else decide(planned, layout)
        ahead = forecast(decision, layout)
        models = check.wait()
    summary = summary_of(decision, ahead, models, runs)
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        print_plan(summary)


def run(
    sweep: SweepArgument,
    runs: RunsOption = Path("runs"),
    preset: PresetOption = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to run on; default: this machine.")] = None,
    seeds: SeedsOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run what is not finished yet, show the table. Run it again at any time: nothing finished is run twice."""
    from pgray.scheduler.driver import run_sweep
    from pgray.scheduler.progress import ProgressReporter, Terminal

    loaded = _load(sweep, preset, seeds, overrides)
    outcome = run_sweep(loaded, runs, address=address, show=ProgressReporter() if as_json else Terminal())
    layout_root = outcome.run_root
    if as_json:
        record = {
            "run": str(layout_root),
            "control": outcome.control,
            "trials": outcome.counts,
            "launched_jobs": outcome.num_launched_jobs,
            "launched_trials": outcome.num_launched_trials,
            "paused": outcome.paused,
            "exit_code": outcome.exit_code,
        }
        print(json.dumps(record, indent=1))
    else:
        from results.present.files import print_rich

        if outcome.counts:  # none where the disk was full before anything was written
            print_rich(layout_root, outcome.control)
        if not outcome.num_launched_jobs and not outcome.paused:
            print("Nothing was launched: all that was asked for has been run before.", file=sys.stderr)
        if outcome.exit_code == 130:
            print("Interrupted; run the same command again to go on.", file=sys.stderr)
        if outcome.exit_code == 3:
            print(
                f"Some trials failed; see the reasons above, pgray logs, and pgray retry {layout_root}.",
                file=sys.stderr,
            )
        print(f"run folder: {layout_root}", file=sys.stderr)
    raise typer.Exit(outcome.exit_code)


def parse_set(overrides: list[str] | None) -> dict[str, Any]:
    """`key=value` pairs with values as in YAML. Raises InputError for one without `=` or for a key given twice."""
    from trainer.errors import InputError
    from trainer.presets.yamlfile import parse_yaml

    parsed: dict[str, Any] = {}
    for text in overrides or []:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InputError("--set", text, "no value", "write key=value, such as --set train.iterations=100")
        if key in parsed:
            raise InputError("--set", key, value, "given twice; give it once")
        parsed[key] = parse_yaml(value, f"--set {key}")
    return parsed


def parse_seeds(text: str | None) -> list[int] | None:
    """`1,2,3` as numbers; None stays None. Raises InputError naming what is not a whole number."""
    from trainer.errors import InputError

    if text is None:
        return None
    seeds = []
    for part in text.replace(" ", "").split(","):
        if not part.isascii() or not part.isdigit():
            raise InputError("--seeds", "seeds", text, "give whole numbers with commas between, such as 1,2,3")
        seeds.append(int(part))
    return seeds


def _load(path: Path, preset: str | None, seeds: str | None, overrides: list[str] | None) -> "Sweep":
    from pgray.spec.sweep import Sweep

    return Sweep.from_yaml(path, preset=preset, seeds=parse_seeds(seeds), overrides=parse_set(overrides))

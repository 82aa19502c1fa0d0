"""`pgray plan` and `pgray run`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pgray.plan import Decision
    from pgray.sweep import Sweep

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
    as_json: JsonOption = False,
) -> None:
    """Check a sweep and say what a run would do. Launches and writes nothing."""
    from pgray.plan import decide, make_plan
    from trainer.layout import RunLayout

    loaded = _load(sweep, preset, seeds, overrides)
    decision = decide(make_plan(loaded), RunLayout(runs.absolute() / loaded.name))
    summary = _summary(decision, runs)
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        _print_plan(summary, decision)


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
    from pgray.driver import run_sweep
    from pgray.progress import Silent, Terminal

    loaded = _load(sweep, preset, seeds, overrides)
    outcome = run_sweep(loaded, runs, address=address, show=Silent() if as_json else Terminal())
    layout_root = outcome.run_root
    if as_json:
        record = {
            "run": str(layout_root),
            "control": outcome.control,
            "trials": outcome.counts,
            "launched_jobs": outcome.num_launched_jobs,
            "launched_trials": outcome.num_launched_trials,
            "exit_code": outcome.exit_code,
        }
        print(json.dumps(record, indent=1))
    else:
        from results.tables import print_rich

        print_rich(layout_root, outcome.control)
        if not outcome.num_launched_jobs:
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
    from trainer.yamlfile import parse_yaml

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
    from pgray.sweep import Sweep

    return Sweep.from_yaml(path, preset=preset, seeds=parse_seeds(seeds), overrides=parse_set(overrides))


def _summary(decision: "Decision", runs: Path) -> dict[str, Any]:
    from trainer.limits import ARTIFACT_CAP_BYTES
    from trainer.shapes import num_params, predicted_artifact_bytes

    plan = decision.plan
    sweep, machine = plan.sweep, plan.sweep.machine
    groups = decision.shared()
    num_run = sum(len(group) for group in groups)
    train_s = sum(group[0].config.train.wallclock_s for group in groups)
    gpu_hours = train_s * machine.gpus / 3600
    price = sweep.usd_per_gpu_hour
    counts = {action: len(decision.with_action(action)) for action in ("run", "finished", "recover", "leave")}
    return {
        "sweep": sweep.name,
        "question": sweep.file.question,
        "run": str(runs / sweep.name),
        "preset": sweep.preset.name,
        "machine": machine.model_dump(),
        "seeds": list(sweep.seeds),
        "control": plan.expansion.control,
        "counts": {"trials": len(plan.trials), **counts},
        "jobs": [[trial.trial_id for trial in group] for group in groups],
        "training_runs_saved": num_run - len(groups),
        "training_gpu_hours_at_most": gpu_hours,
        "training_usd_at_most": None if price is None else gpu_hours * price,
        "warnings": list(plan.warnings),
        "dropped": list(plan.expansion.dropped),
        "merged": list(plan.expansion.merged),
        "superseded": [entry.trial_id for entry in decision.superseded],
        "arms": [
            {
                "arm": arm.name,
                "changes": arm.changes,
                "num_params": num_params(arm.config),
                "predicted_artifact_bytes": predicted_artifact_bytes(arm.config),
            }
            for arm in plan.expansion.arms
        ],
        "artifact_cap_bytes": ARTIFACT_CAP_BYTES,
        "trials": [
            {
                "arm": trial.arm,
                "seed": trial.seed,
                "trial_id": trial.trial_id,
                "train_fingerprint": trial.train_fingerprint,
                "action": decision.actions[trial.trial_id],
                "before": before.state if (before := decision.before.get(trial.trial_id)) else None,
                "reason": before.reason if before else None,
            }
            for trial in plan.trials
        ],
    }


def _print_plan(summary: dict[str, Any], decision: "Decision") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pgray.designs import changes_text

    console = Console()
    console.print(Text(f"{summary['sweep']}: {summary['question']}" if summary["question"] else summary["sweep"]))
    machine = decision.plan.sweep.machine
    holds = f"{machine.gpus} GPUs, {machine.cpus} CPUs, {machine.nproc} ranks"
    console.print(Text(f"preset {summary['preset']}; each job holds {holds}; run folder {summary['run']}", style="dim"))
    table = Table("arm", "trials", box=None, padding=(0, 1), pad_edge=False)
    table.columns[0].overflow = "fold"
    for heading in ("parameters", "bytes, about"):
        table.add_column(heading, justify="right")
    cap = summary["artifact_cap_bytes"]
    for arm, sizes in zip(decision.plan.expansion.arms, summary["arms"], strict=True):
        name = Text(arm.name + (" (control)" if arm.name == summary["control"] else ""))
        if arm.changes:
            name.append(f"\n  {changes_text(arm.changes)}", style="dim")
        actions = [decision.actions[trial.trial_id] for trial in decision.plan.trials if trial.arm == arm.name]
        done = actions.count("finished") + actions.count("recover")
        counts = {"to run": actions.count("run"), "finished": done, "failed": actions.count("leave")}
        trials = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        num_bytes = sizes["predicted_artifact_bytes"]
        table.add_row(name, trials, f"{sizes['num_params']:,}", f"{num_bytes:,} {num_bytes / cap:4.0%}")
    console.print(table)
    if any(sizes["predicted_artifact_bytes"] > cap for sizes in summary["arms"]):
        hint = "bytes ~ takes weights for Gaussian; trained for long they have come out up to 15 % smaller"
        console.print(Text(f"some arms may exceed the cap of {cap:,} bytes ({hint})", style="yellow"))
    for warning in [*summary["warnings"], *(f"superseded: {name}" for name in summary["superseded"])]:
        console.print(Text(f"warning: {warning}", style="yellow"))
    num_run, num_jobs = summary["counts"]["run"], len(summary["jobs"])
    saved = summary["training_runs_saved"]
    if not num_run:
        console.print(Text(f"{summary['counts']['trials']} trials, nothing to run"))
        return
    sharing = f": {saved} training run{'s' * (saved != 1)} saved by sharing" if saved else ""
    console.print(Text(f"{num_run} trials in {num_jobs} job{'s' * (num_jobs != 1)}{sharing}"))
    if machine.gpus:
        usd = summary["training_usd_at_most"]
        price = f", ${usd:.2f}" if usd is not None else ""
        hours = summary["training_gpu_hours_at_most"]
        console.print(Text(f"training takes at most {hours:.2f} GPU-hours{price}; exports and evaluation come on top"))

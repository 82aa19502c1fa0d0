"""What `pgray plan` says: one summary, as JSON or as a page for people."""

from pathlib import Path
from typing import Any

from pgray.designs import changes_text
from pgray.plan import Decision
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.shapes import num_params, predicted_artifact_bytes


def summary_of(decision: Decision, runs: Path) -> dict[str, Any]:
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


def print_plan(summary: dict[str, Any], decision: Decision) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

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

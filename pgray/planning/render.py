"""Print a plan on the terminal: the arms in a table, then warnings, time and cost."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from pgray.planning.decision import Decision
from pgray.planning.forecast import Forecast
from pgray.planning.model_check import ModelFacts
from pgray.spec.designs import changes_text
from results.present.console import open_console
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.records.text import count_of

MAX_NAMES_CHARS = 200  # arm names in a warning; `--json` has all of them


def print_plan(decision: Decision, ahead: Forecast, models: dict[str, ModelFacts], run: Path) -> None:
    """Print the whole plan. `run`: the run folder, relative if the user's path was."""
    console = open_console()
    sweep, machine = decision.plan.sweep, decision.plan.sweep.machine
    console.print(Text(f"{sweep.name}: {sweep.file.question}" if sweep.file.question else sweep.name))
    holds = ", ".join([count_of(machine.gpus, "GPU"), count_of(machine.cpus, "CPU"), count_of(machine.nproc, "rank")])
    holds += f" on each of {machine.nodes} nodes" if machine.nodes > 1 else ""
    console.print(Text(f"preset {sweep.preset.name}; each job holds {holds}; run folder {run}", style="dim"))
    console.print(_arms(decision, ahead, models))
    console.print(Text(f"bytes from {ahead.bytes_source}, steps from {ahead.steps_source}", style="dim"))
    superseded = (f"superseded: {entry.trial_id}" for entry in decision.superseded)
    for warning in [*ahead.warnings, *decision.warnings, *superseded]:
        console.print(Text(f"warning: {_shorten(warning)}", style="yellow"))
    if not decision.plan.checked_data:
        text = "planned without data: trial ids are unknown, so no trial counts as finished"
        console.print(Text(text, style="yellow"))
    for line in _work(decision, ahead):
        console.print(Text(line))


def _shorten(warning: str) -> str:
    """Cut a long list of arms at the start of a warning."""
    arms, colon, text = warning.partition(": ")
    return (
        warning if len(arms) <= MAX_NAMES_CHARS else f"{arms[:MAX_NAMES_CHARS].rpartition(', ')[0]}, ...{colon}{text}"
    )


def _arms(decision: Decision, ahead: Forecast, models: dict[str, ModelFacts]) -> Table:
    table = Table("arm", "trials", box=None, padding=(0, 1), pad_edge=False)
    table.columns[0].overflow = "fold"
    for heading in ("parameters", "steps", "bytes", "of cap"):
        table.add_column(heading, justify="right")
    for arm in decision.plan.expansion.arms:
        label = decision.plan.expansion.labels.get(arm.name, arm.name)
        name = Text(label + (" (control)" if arm.name == decision.plan.expansion.control else ""))
        if arm.changes:
            name.append(f"\n  {changes_text(arm.changes)}", style="dim")
        actions = [decision.actions[trial.trial_id] for trial in decision.plan.trials if trial.arm == arm.name]
        done = actions.count("finished") + actions.count("recover")
        counts = {"to run": actions.count("run"), "finished": done, "failed": actions.count("leave")}
        size = ahead.sizes[arm.name]
        spread = max(size.high_bytes - size.num_bytes, size.num_bytes - size.low_bytes) / size.num_bytes
        table.add_row(
            name,
            ", ".join(f"{count} {what}" for what, count in counts.items() if count),
            f"{models[arm.name].num_params:,}",
            f"{ahead.step_times[arm.name].steps:,}",
            f"{size.num_bytes:,} ±{spread:.0%}",
            f"{size.num_bytes / ARTIFACT_CAP_BYTES:.0%}",
        )
    return table


def _work(decision: Decision, ahead: Forecast) -> list[str]:
    """Return lines with the number of trials and jobs, the time and the cost."""
    num_run, num_jobs = len(decision.with_action("run")), len(ahead.jobs)
    if not ahead.all_jobs:
        num_failed = len(decision.with_action("leave"))
        failed = f"{count_of(num_failed, 'trial')} failed for good, all others are finished."
        return [f"Nothing to run: {failed if num_failed else 'all trials are finished.'}"]
    sharing = f": {count_of(num_run - num_jobs, 'training run')} saved by sharing" if num_run > num_jobs else ""
    lines = [f"{count_of(num_run, 'trial')} in {count_of(num_jobs, 'job')}{sharing}"]
    if ahead.proposed_jobs:
        lines.append(f"{count_of(len(ahead.proposed_jobs), 'more trial')} for the search to propose")
    longest, total = _duration(ahead.longest_job_s), _duration(ahead.jobs_s)
    lines.append(f"about {longest} per job, {total} in sequence (estimated from {ahead.time_source})")
    if not decision.plan.sweep.machine.gpus:
        return lines
    price = decision.plan.sweep.usd_per_gpu_hour

    def cost(gpu_hours: float | None) -> str:
        usd = f", ${(gpu_hours or 0) * price:.2f}" if price is not None else ""
        return f"{gpu_hours:.2f} GPU-hours{usd}"

    lines.append(f"training: at most {cost(ahead.training_gpu_hours_at_most)}")
    expected, limit = cost(ahead.expected_gpu_hours), cost(ahead.gpu_hours_at_most)
    lines.append(f"with start, exports and evaluation: {expected} expected, at most {limit}")
    if ahead.limit_gpu_hours is not None:
        verdict = "expected to be enough" if ahead.is_budget_enough else "not enough"
        lines.append(f"budget: {cost(ahead.left_gpu_hours)} left of {cost(ahead.limit_gpu_hours)}, {verdict}")
    return lines


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"

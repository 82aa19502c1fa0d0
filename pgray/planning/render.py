"""What `pgray plan` prints for people: the arms in a table, then what is doubtful, then time and money."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgray.spec.designs import changes_text

MOST_NAMES = 200  # characters of arm names in a warning


def print_plan(summary: dict[str, Any]) -> None:
    """`summary`: see `plan_summary.summary_of`."""
    console = Console()
    console.print(Text(f"{summary['sweep']}: {summary['question']}" if summary["question"] else summary["sweep"]))
    machine = summary["machine"]
    holds = f"{machine['gpus']} GPUs, {machine['cpus']} CPUs, {machine['nproc']} ranks"
    holds += f" on each of {machine['nodes']} nodes" if machine["nodes"] > 1 else ""
    console.print(Text(f"preset {summary['preset']}; each job holds {holds}; run folder {summary['run']}", style="dim"))
    console.print(_arms(summary))
    sources = summary["predicted_from"]
    console.print(Text(f"bytes from {sources['bytes']}, steps from {sources['steps']}", style="dim"))
    for warning in [*summary["warnings"], *(f"superseded: {name}" for name in summary["superseded"])]:
        console.print(Text(f"warning: {_shortened(warning)}", style="yellow"))
    if not summary["reads_data"]:
        console.print(
            Text("planned without data: identities are unknown, so no trial counts as finished", style="yellow")
        )
    for line in _work(summary):
        console.print(Text(line))


def _shortened(warning: str) -> str:
    """A long list of arms in the middle of a warning gives way; `--json` has all of it."""
    arms, colon, doubt = warning.partition(": ")
    return warning if len(arms) <= MOST_NAMES else f"{arms[:MOST_NAMES].rpartition(', ')[0]}, ...{colon}{doubt}"


def _arms(summary: dict[str, Any]) -> Table:
    table = Table("arm", "trials", box=None, padding=(0, 1), pad_edge=False)
    table.columns[0].overflow = "fold"
    for heading in ("parameters", "steps", "bytes, about", "of cap"):
        table.add_column(heading, justify="right")
    for arm in summary["arms"]:
        name = Text(arm["arm"] + (" (control)" if arm["arm"] == summary["control"] else ""))
        if arm["changes"]:
            name.append(f"\n  {changes_text(arm['changes'])}", style="dim")
        actions = [trial["action"] for trial in summary["trials"] if trial["arm"] == arm["arm"]]
        done = actions.count("finished") + actions.count("recover")
        counts = {"to run": actions.count("run"), "finished": done, "failed": actions.count("leave")}
        trials = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        num_bytes = arm["predicted_artifact_bytes"]
        off = max(arm["predicted_artifact_bytes_high"] - num_bytes, num_bytes - arm["predicted_artifact_bytes_low"])
        size = f"{num_bytes:,} ±{off / num_bytes:.0%}"
        steps = f"{arm['predicted_steps']:,}"
        share = f"{arm['predicted_share_of_cap']:.0%}"
        table.add_row(name, trials, f"{arm['num_params']:,}", steps, size, share)
    return table


def _work(summary: dict[str, Any]) -> list[str]:
    """How much there is to do, how long it takes, what it costs."""
    num_run, jobs, to_come = summary["counts"]["run"], summary["job_costs"], summary["trials_to_propose"]
    if not num_run and not to_come:
        return [f"{summary['counts']['trials']} trials, nothing to run"]
    saved = summary["training_runs_saved"]
    sharing = f": {saved} training run{'s' * (saved != 1)} saved by sharing" if saved else ""
    lines = [f"{num_run} trials in {len(jobs)} job{'s' * (len(jobs) != 1)}{sharing}"]
    if to_come:
        lines.append(f"{to_come} more trials are for the search to propose")
    longest, together = summary["longest_job_s"] / 60, summary["jobs_s"] / 3600
    lines.append(
        f"a job takes up to {longest:.1f} min, all of them {together:.2f} h one after the other, "
        f"going by {summary['predicted_from']['time']}"
    )
    if not summary["machine"]["gpus"]:
        return lines
    training = _money(summary["training_gpu_hours_at_most"], summary["training_usd_at_most"])
    expected = _money(summary["gpu_hours_expected"], summary["usd_expected"])
    allowed = _money(summary["gpu_hours_at_most"], summary["usd_at_most"])
    lines.append(f"training takes at most {training}")
    lines.append(f"with start, exports and evaluation {expected} are expected; never above {allowed}")
    budget = summary["budget"]
    if budget["limit_gpu_hours"] is not None:
        verdict = "enough, as expected" if budget["is_expected_to_suffice"] else "not enough"
        left = _money(budget["left_gpu_hours"], budget["left_usd"])
        limit = _money(budget["limit_gpu_hours"], budget["limit_usd"])
        lines.append(f"budget: {left} left of {limit}, {verdict}")
    return lines


def _money(gpu_hours: float, usd: float | None) -> str:
    return f"{gpu_hours:.2f} GPU-hours" + (f", ${usd:.2f}" if usd is not None else "")

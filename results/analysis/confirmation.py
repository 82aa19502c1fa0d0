"""What arms that were chosen for their results lose on fresh seeds.

`pgray confirm` re-runs the best arms of a run as a sweep of its own, whose `confirms` names the run. The two runs stay apart:
nothing here pools their seeds.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from results.loading.runs import current, load
from results.loading.study import StudySummary, read_study
from results.schema import Row, records
from trainer.errors import InputError
from trainer.presets.yamlfile import read_yaml
from trainer.records.layout import RunLayout
from trainer.records.results import HEADLINES, METRICS
from trainer.records.states import TrialState
from trainer.records.text import count_of

_MAX_BEST = 3  # of a Pareto set


@dataclass(frozen=True)
class ConfirmedArm:
    """An arm on the seeds that chose it and on fresh ones. Means over seeds; a gain is how much better than the control it is,
    on the seeds that both finished, and is None without such seeds.
    """

    arm: str
    metric: str
    run: str  # folder of the confirming run
    num_selected: int
    selected_mean: float
    selected_gain: float | None
    num_fresh: int
    fresh_mean: float
    fresh_gain: float | None

    @property
    def text(self) -> str:
        """`t003: gain in sliding_bpb +0.0155 on the 2 seeds that chose it, +0.0089 on 5 fresh: 43% less`."""
        chosen, fresh = f"the {count_of(self.num_selected, 'seed')} that chose it", f"{self.num_fresh} fresh"
        if self.selected_gain is None or self.fresh_gain is None:
            return f"{self.arm}: {self.metric} {self.selected_mean:.6g} on {chosen}, {self.fresh_mean:.6g} on {fresh}"
        text = f"{self.arm}: gain in {self.metric} {self.selected_gain:+.4g} on {chosen}, {self.fresh_gain:+.4g} on {fresh}"
        if self.selected_gain <= 0:
            return text
        change = self.fresh_gain / self.selected_gain - 1
        return f"{text}: {abs(change):.0%} {'less' if change < 0 else 'more'}"


def notes_on_choice(runs: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return arm -> the constraint that it breaks, and `selection_lines`, for the table of one run; nothing for several."""
    if len(runs) != 1:
        return {}, []
    run = Path(runs[0])
    try:
        study = read_study(RunLayout(run))
    except InputError as error:
        return {}, [str(error)]
    broken = {trial.name: f"breaks {trial.broken}" for trial in study.scored if trial.broken} if study else {}
    return broken, selection_lines(run, study)


def selection_lines(run: Path, study: StudySummary | None = None) -> list[str]:
    """Return what a reader must know about a choice by results: the best proposal, the seeds that chose it, its loss.

    Args:
        run: a run folder: of a search, of arms that were confirmed, or of a confirmation.
        study: the run's search, for instance as `read_study` returns it.
    """
    lines = []
    best = [trial for trial in study.scored if trial.name in study.best] if study else []
    for trial in best[:_MAX_BEST]:
        lines.append(f"best proposal {trial.name} sets {_settings(trial.params)}")
    confirmed = confirmed_arms(run)
    if study and best:
        seeds = f"{'seeds' if len(best[0].seeds) > 1 else 'seed'} {', '.join(best[0].seeds)}"
        chosen = f"the best of {count_of(len(study.scored), 'proposal')} was chosen on {seeds}"
        advice = "on other seeds it will probably be worse; pgray confirm measures that"
        lines.append(chosen if confirmed else f"{chosen}: {advice}")
    lines += [f"{arm.text} (run {arm.run})" for arm in confirmed]
    if confirms := _confirms(run / "sweep.yaml"):
        seeds = ", ".join(map(str, confirms.get("seeds", [])))
        lines.append(f"these arms were chosen in run {confirms['run']} on seeds {seeds}; none of them is in this table")
    return lines


def _settings(params: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={json.dumps(v)}" for k, v in params.items())


def rank_arms(run: Path, control: str) -> tuple[str, list[str]]:
    """Return the metric that ranks the arms of a run, and the arms other than the control, the best first.

    Only arms whose seeds have all finished within the byte cap are ranked, by the first headline metric that all rows have.
    """
    by_arm = _by_arm(run)
    metric = _headline(by_arm)
    means = {
        arm: fmean(row[metric] for row in rows)
        for arm, rows in by_arm.items()
        if arm != control and all(row[metric] is not None and row["is_within_cap"] is not False for row in rows)
    }
    return metric, sorted(means, key=means.__getitem__)


def confirmed_arms(run: Path) -> list[ConfirmedArm]:
    """Return the arms of a run that runs beside it have confirmed, as far as they have finished."""
    run = run.resolve()
    found: list[ConfirmedArm] = []
    selected: dict[str, list[Row]] = {}
    for folder, metric in _confirming_runs(run):
        selected = selected or _by_arm(run)
        fresh = _by_arm(folder)
        control = str(load(folder).attrs["control"])
        sign = _sign(run, metric)
        for arm in fresh:
            before, after = (_values(rows, arm, metric) for rows in (selected, fresh))
            if arm == control or not before or not after:
                continue
            gains = [
                _gain(values, _values(rows, control, metric), sign)
                for values, rows in ((before, selected), (after, fresh))
            ]
            found.append(
                ConfirmedArm(
                    arm, metric, folder.name, len(before), fmean(before.values()), gains[0], len(after),
                    fmean(after.values()), gains[1],
                )
            )  # fmt: skip
    return found


def _confirming_runs(run: Path) -> list[tuple[Path, str]]:
    """Return the folders beside a run whose sweep confirms it, with the metric that chose their arms."""
    found = []
    for path in sorted(run.parent.glob("*/sweep.yaml")):
        confirms = _confirms(path)
        if confirms and confirms["run"] == run.name and RunLayout(path.parent).ledger.is_file():
            metric = confirms.get("metric")
            found.append((path.parent, metric if metric in METRICS else _headline(_by_arm(path.parent))))
    return found


def _confirms(sweep: Path) -> dict[str, Any] | None:
    """Return the section `confirms` of a sweep file, None without a readable one."""
    try:
        raw: Any = read_yaml(sweep) if b"\nconfirms:" in sweep.read_bytes() else {}
    except (OSError, InputError):
        return None
    confirms = raw.get("confirms") if isinstance(raw, dict) else None
    return confirms if isinstance(confirms, dict) and isinstance(confirms.get("run"), str) else None


def _sign(run: Path, metric: str) -> int:
    """Return 1 if lower is better in this run, -1 if higher is."""
    study = read_study(RunLayout(run))
    return -1 if study is not None and study.objectives.get(metric) == "max" else 1


def _by_arm(run: Path) -> dict[str, list[Row]]:
    by_arm: dict[str, list[Row]] = defaultdict(list)
    for row in records(current(load(run))):
        by_arm[row["arm"]].append(row)
    return by_arm


def _headline(by_arm: dict[str, list[Row]]) -> str:
    """Return the first headline metric that every finished trial has."""
    done = [row for rows in by_arm.values() for row in rows if row["status"] == TrialState.FINISHED]
    return next((name for name in HEADLINES if done and all(row[name] is not None for row in done)), HEADLINES[-1])


def _values(by_arm: dict[str, list[Row]], arm: str, metric: str) -> dict[int, float]:
    """Return seed -> value of an arm's finished trials."""
    rows = (row for row in by_arm.get(arm, []) if row["status"] == TrialState.FINISHED)
    return {row["seed"]: row[metric] for row in rows if row[metric] is not None}


def _gain(arm: dict[int, float], control: dict[int, float], sign: int) -> float | None:
    """Return the mean improvement on the control over the seeds of both."""
    shared = arm.keys() & control.keys()
    return fmean(sign * (control[seed] - arm[seed]) for seed in shared) if shared else None

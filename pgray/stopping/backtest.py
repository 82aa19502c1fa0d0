"""What kill rules and seed racing would have done to a finished run: what they save, and what they would have lost.

The run is replayed seed by seed, as a sweep launches it, from its recorded curves, results and job times. Two things are
taken for granted: the control of a seed is always ahead of the other arms, and a verdict acts at the very point that it is
passed on. A training run that several arms share is stopped only when no arm needs it any more.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pgray.spec.kill_rule import CURVE_METRICS, KillRule
from pgray.spec.race import Race
from pgray.stopping.curves import Curve, Point
from pgray.stopping.pruning import run_verdict, seed_verdict
from pgray.stopping.racing import verdicts
from pgray.stopping.run_history import ALL, RecordedTrial, Spent, read_trial_curve, read_trials, total
from trainer.errors import InputError
from trainer.records.layout import RunLayout
from trainer.records.results import HEADLINES

StoppedBy = Literal["curve", "seed", "race"]
"""A rule on the trial's own curve, a rule on an earlier seed of its arm, or the race."""


@dataclass(frozen=True)
class StoppedTrial:
    """A trial that would not have come to its end.

    `step`, `share`: where its training would have stopped; None where it would not have begun, or only its export would
    have been left out. `value`: what it came to in truth, None if nothing is known.
    """

    arm: str
    seed: int
    trial_id: str
    by: StoppedBy
    reason: str
    step: int | None
    share: float | None
    saved: Spent
    value: float | None
    beat_control: bool | None
    is_top_arm: bool
    is_win: bool


@dataclass(frozen=True)
class Backtest:
    """What a replay came to.

    `metric`: what values and ranks are of. `top`: the best arms by their mean, in truth. `wins`: arms with the verdict WIN.
    `num_better`: trials that ended better than the control. `notes`: what could not be judged.
    """

    run: str
    control: str
    metric: str
    rules: list[str]
    num_trials: int
    num_better: int
    spent: Spent
    saved: Spent
    stopped: list[StoppedTrial]
    top: list[str]
    wins: list[str]
    notes: list[str]

    @property
    def text(self) -> str:
        """One line: what is saved, and what would have been lost."""
        if self.spent.gpu_s:
            saved, spent = self.saved.gpu_s, self.spent.gpu_s
            amount = f"{saved / 3600:.2f} of {spent / 3600:.2f} GPU-hours"
        else:
            saved, spent = self.saved.wall_s, self.spent.wall_s
            amount = f"{saved:.0f} of {spent:.0f} s of CPU jobs"
        usd = "" if self.saved.usd is None or self.spent.usd is None else f", ${self.saved.usd:.2f}"
        arms = {trial.arm for trial in self.stopped}
        better = sum(trial.beat_control is True for trial in self.stopped)
        unknown = sum(trial.value is None for trial in self.stopped)
        return (
            f"saves {amount} ({saved / spent if spent else 0:.0%}{usd}), stops {len(self.stopped)} of {self.num_trials} "
            f"trials; would have killed {len(arms & set(self.top))} of the top {len(self.top)} arms, "
            f"{len(arms & set(self.wins))} of {len(self.wins)} wins, {better} of {self.num_better} trials that ended better "
            f"than the control" + (f"; {unknown} of the stopped have no known end" if unknown else "")
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, `text` included."""
        stopped = [asdict(trial) | {"saved": trial.saved._asdict()} for trial in self.stopped]
        totals = {"spent": self.spent._asdict(), "saved": self.saved._asdict()}
        return asdict(self) | totals | {"stopped": stopped, "text": self.text}


def backtest(run: Path, rules: Sequence[KillRule], race: Race | None = None, top: int = 3) -> Backtest:
    """Replay rules, and a race, over a run folder.

    Args:
        top: how many of the best arms to watch over.
    Raises:
        InputError: not a run folder; no control in it; a rule that covers none of its arms.
    """
    import results

    table = results.load(run)
    layout = RunLayout(run)
    trials = read_trials(layout)
    control = _control(table.attrs.get("control"), rules, trials, str(run))
    curves: dict[str, Curve] = {}
    for trial in trials:
        if trial.train_fingerprint not in curves:
            curves[trial.train_fingerprint] = read_trial_curve(layout, trial)
    replay = _Replay(rules, race, control, curves)
    for seed in dict.fromkeys(trial.seed for trial in trials):
        replay.seed([trial for trial in trials if trial.seed == seed])

    found = [trial.result for trial in trials if trial.result]
    is_measured = (name for name in HEADLINES if any(getattr(result, name) is not None for result in found))
    metric = next(is_measured, HEADLINES[-1])
    values = {(t.arm, t.seed): float(v) for t in trials if t.result and (v := getattr(t.result, metric)) is not None}
    is_better = {(arm, s): v < values[control, s] for (arm, s), v in values.items() if (control, s) in values}
    best = _best_arms(values)[:top]
    ablation = results.ablation(table, control, metric, on_mismatch="mark")
    wins = [str(arm) for arm in ablation.loc[ablation["verdict"] == "WIN", "arm"]]
    stopped = [
        StoppedTrial(
            arm=trial.arm,
            seed=trial.seed,
            trial_id=trial.trial_id,
            by=by,
            reason=reason,
            step=point.step if point else None,
            share=point.share if point else None,
            saved=saved,
            value=values.get((trial.arm, trial.seed)),
            beat_control=is_better.get((trial.arm, trial.seed)),
            is_top_arm=trial.arm in best,
            is_win=trial.arm in wins,
        )
        for trial, by, reason, point, saved in replay.stopped
    ]
    return Backtest(
        run=str(run),
        control=control,
        metric=metric,
        rules=[rule.text for rule in rules] + ([race.text] if race else []),
        num_trials=len(trials),
        num_better=sum(is_better.values()),
        spent=total([trial.spent_after(ALL) for trial in trials]),
        saved=total([trial.saved for trial in stopped]),
        stopped=stopped,
        top=best,
        wins=wins,
        notes=_notes(rules, race, trials, curves),
    )


@dataclass
class _Replay:
    """The state of a replay: which arms are out and why, what has been stopped, and how the race stands."""

    rules: Sequence[KillRule]
    race: Race | None
    control: str
    curves: Mapping[str, Curve]  # by train_fingerprint
    out: dict[str, tuple[StoppedBy, str]] = field(default_factory=dict)
    stopped: list[tuple[RecordedTrial, StoppedBy, str, Point | None, Spent]] = field(default_factory=list)
    raced: dict[str, dict[int, float]] = field(default_factory=dict)

    def seed(self, trials: Sequence[RecordedTrial]) -> None:
        """Replay all trials of one seed: their training runs, then what follows from those that came to their end."""
        reference = next((trial for trial in trials if trial.arm == self.control), None)
        control_curve = self.curves[reference.train_fingerprint] if reference else {}
        groups: dict[str, list[RecordedTrial]] = defaultdict(list)
        for trial in trials:
            groups[trial.train_fingerprint].append(trial)
        ended = [
            trial for name, group in groups.items() for trial in self._train(group, self.curves[name], control_curve)
        ]
        self._judge(ended, reference)

    def _train(self, group: Sequence[RecordedTrial], curve: Curve, control_curve: Curve) -> list[RecordedTrial]:
        """Replay the trials of one training run. Returns those that come to their end."""
        running = [trial for trial in group if trial.arm not in self.out]
        found = self._stopping_point([t.arm for t in running], curve, control_curve) if running else None
        for trial in group:
            if trial not in running:
                by, reason = self.out[trial.arm]
                is_exported_by_others = running and not found
                saved = (
                    trial.spent_on_export()
                    if is_exported_by_others
                    else trial.spent_after(found[0].at if found else ALL)
                )
                self.stopped.append((trial, by, reason, None, saved))
            elif found:
                self.stopped.append((trial, "curve", found[1], found[0], trial.spent_after(found[0].at)))
        return [] if found else running

    def _stopping_point(self, arms: list[str], curve: Curve, control_curve: Curve) -> tuple[Point, str] | None:
        """The first point at which a training run would have been stopped, and why."""
        for now in sorted((p for points in curve.values() for p in points), key=lambda point: point.step):
            so_far = {metric: [p for p in points if p.step <= now.step] for metric, points in curve.items()}
            reason = run_verdict(self.rules, arms, self.control, so_far, control_curve)
            if reason:
                return now, reason
        return None

    def _judge(self, ended: Sequence[RecordedTrial], reference: RecordedTrial | None) -> None:
        """Which arms get no more seeds."""
        for trial in ended:
            if trial.result is None:
                continue
            value = getattr(trial.result, self.race.metric) if self.race else None
            if value is not None:
                self.raced.setdefault(trial.arm, {})[trial.seed] = float(value)
            for rule in self.rules:
                if reference and reference.result and rule.covers(trial.arm, self.control):
                    reason = seed_verdict(rule, trial.result, reference.result)
                    if reason:
                        self.out.setdefault(trial.arm, ("seed", reason))
        if self.race:
            for arm, reason in verdicts(self.race, self.raced, self.control).items():
                self.out.setdefault(arm, ("race", reason))


def _control(recorded: str | None, rules: Sequence[KillRule], trials: Sequence[RecordedTrial], run: str) -> str:
    """The run's control, once it is known to be there and that every rule covers some other arm."""
    arms = list(dict.fromkeys(trial.arm for trial in trials))
    control = recorded or next(iter(arms), "")
    if control not in arms:
        raise InputError(run, "control", control, f"not among the arms: {', '.join(arms) or 'there are none'}")
    for rule in rules:
        if not any(rule.covers(arm, control) for arm in arms):
            others = ", ".join(arm for arm in arms if arm != control)
            raise InputError(run, "arm", rule.arm, f"covers no arm other than the control; use one of {others}")
    return control


def _best_arms(values: Mapping[tuple[str, int], float]) -> list[str]:
    by_arm: dict[str, list[float]] = defaultdict(list)
    for (arm, _), value in values.items():
        by_arm[arm].append(value)
    return sorted(by_arm, key=lambda arm: fmean(by_arm[arm]))


def _notes(
    rules: Sequence[KillRule], race: Race | None, trials: Sequence[RecordedTrial], curves: Mapping[str, Curve]
) -> list[str]:
    """What could not be judged, so that "stops nothing" is not taken for "would do no harm"."""
    found = []
    for metric in dict.fromkeys([rule.metric for rule in rules] + ([race.metric] if race else [])):
        if metric in CURVE_METRICS:
            has_it = [bool(curves[trial.train_fingerprint].get(metric)) for trial in trials]
        else:
            has_it = [trial.result is not None and getattr(trial.result, metric) is not None for trial in trials]
        if not all(has_it):
            missing = dict.fromkeys(trial.arm for trial, has in zip(trials, has_it, strict=True) if not has)
            found.append(f"{metric} is not known of {has_it.count(False)} trials: {', '.join(missing)}")
    num_seeds = len({trial.seed for trial in trials})
    if num_seeds == 1 and any(not rule.is_on_curve for rule in rules):
        found.append("the run has one seed: there is no later seed that a rule on an end metric could leave out")
    if race and num_seeds <= race.first:
        found.append(f"the race gives every arm {race.first} seeds, and the run has no more: it leaves out nothing")
    untimed = sum(not trial.shares for trial in trials)
    if untimed:
        found.append(f"{untimed} of {len(trials)} trials have no job times: nothing is saved on them")
    return found

"""Replays stopping rules over a finished run: what they would have saved, and what they would have lost.

The run is replayed seed by seed, as a sweep launches it, from its recorded curves, results and job times, with the rules
that the scheduler applies. Two simplifications: the control of a seed is always ahead of the other arms, and a verdict
takes effect at the point that it judges. A training run that several arms share is stopped only when no arm needs it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from pgray.spec.stopping import StoppingSection
from pgray.stopping.curves import Curve, Point
from pgray.stopping.rule import StoppingRule, arms_to_drop, run_verdict, stopping_rules
from pgray.stopping.run_history import ALL, RecordedTrial, Spent, read_trial_curve, read_trials, total
from trainer.errors import InputError
from trainer.records.layout import RunLayout
from trainer.records.results import HEADLINES, TrialResult
from trainer.records.text import count_of

Rules = Sequence[StoppingRule[Any]]


@dataclass(frozen=True)
class StoppedTrial:
    """A trial that the rules would have stopped or skipped.

    `by`: `curve`, or the label of the rule that dropped the arm after an earlier seed. `step`, `share`: where its training
    would have stopped; None if it would not have started, or if only its export would have been skipped. `value`: its
    actual result, None if unknown.
    """

    arm: str
    seed: int
    trial_id: str
    by: str
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
    """The result of a replay.

    `metric`: of values and ranks. `top`: the arms with the best actual means. `wins`: arms with the verdict WIN.
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
        """What is saved and what would have been lost, in one line."""
        if self.spent.gpu_s:
            saved, spent = self.saved.gpu_s, self.spent.gpu_s
            amount = f"{saved / 3600:.2f} of {spent / 3600:.2f} GPU-hours"
        else:
            saved, spent = self.saved.wall_s, self.spent.wall_s
            amount = f"{saved:.0f} of {spent:.0f} s of CPU jobs"
        usd = "" if self.saved.usd is None or self.spent.usd is None else f", ${self.saved.usd:.2f}"
        saving = f"{amount} ({saved / spent:.0%}{usd})" if spent else "an unknown time"  # no job has times
        arms = {trial.arm for trial in self.stopped}
        better = sum(trial.beat_control is True for trial in self.stopped)
        unknown = sum(trial.value is None for trial in self.stopped)
        return (
            f"saves {saving}, stops {len(self.stopped)} of {self.num_trials} "
            f"trials; would have killed {len(arms & set(self.top))} of the top {len(self.top)} arms, "
            f"{len(arms & set(self.wins))} of {len(self.wins)} wins, {better} of {self.num_better} trials that ended better "
            f"than the control" + (f"; {unknown} stopped without a known result" if unknown else "")
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values, `text` included."""
        stopped = [asdict(trial) | {"saved": trial.saved._asdict()} for trial in self.stopped]
        totals = {"spent": self.spent._asdict(), "saved": self.saved._asdict()}
        return asdict(self) | totals | {"stopped": stopped, "text": self.text}


def backtest(run: Path, sections: Sequence[StoppingSection], top: int = 3) -> Backtest:
    """Replay stopping rules over a run folder.

    Args:
        sections: configure the rules, as in a sweep file.
        top: how many of the best arms the result says were kept or lost.
    Raises:
        InputError: not a run folder; no control in it; a rule that covers none of its arms.
    """
    import results

    table = results.load(run)
    layout = RunLayout(run)
    trials = read_trials(layout)
    arms = list(dict.fromkeys(trial.arm for trial in trials))
    control = table.attrs.get("control") or next(iter(arms), "")
    if control not in arms:
        raise InputError(str(run), "control", control, f"not among the arms: {', '.join(arms) or 'there are none'}")
    rules = stopping_rules(sections, control)
    for rule in rules:
        rule.check_arms(arms, str(run))
    curves: dict[str, Curve] = {}
    for trial in trials:
        if trial.train_fingerprint not in curves:
            curves[trial.train_fingerprint] = read_trial_curve(layout, trial)
    replay = _Replay(rules, control, curves)
    for seed in dict.fromkeys(trial.seed for trial in trials):
        replay.run_seed([trial for trial in trials if trial.seed == seed])

    found = [trial.result for trial in trials if trial.result]
    measured = (name for name in HEADLINES if any(getattr(result, name) is not None for result in found))
    metric = next(measured, HEADLINES[-1])
    values = {(t.arm, t.seed): float(v) for t in trials if t.result and (v := getattr(t.result, metric)) is not None}
    is_better = {(arm, s): v < values[control, s] for (arm, s), v in values.items() if (control, s) in values}
    means = {
        arm: fmean(v for (a, _), v in values.items() if a == arm) for arm in dict.fromkeys(arm for arm, _ in values)
    }
    best = sorted(means, key=means.__getitem__)[:top]
    ablation = results.ablation(table, control, metric, on_mismatch="mark", on_failed_seeds="ignore")
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
        rules=[section.text for section in sections],
        num_trials=len(trials),
        num_better=sum(is_better.values()),
        spent=total([trial.spent_after(ALL) for trial in trials]),
        saved=total([trial.saved for trial in stopped]),
        stopped=stopped,
        top=best,
        wins=wins,
        notes=_notes(rules, trials, curves),
    )


@dataclass
class _Replay:
    """The state of a replay: which arms are dropped and why, what has been stopped, and the results up to now."""

    rules: Rules
    control: str
    curves: Mapping[str, Curve]  # by train_fingerprint
    dropped: dict[str, tuple[str, str]] = field(default_factory=dict)  # arm -> label and reason
    stopped: list[tuple[RecordedTrial, str, str, Point | None, Spent]] = field(default_factory=list)
    results: dict[str, dict[int, TrialResult]] = field(default_factory=dict)

    def run_seed(self, trials: Sequence[RecordedTrial]) -> None:
        """Replay all trials of one seed: their training runs, then the verdicts on those that finished."""
        reference = next((trial for trial in trials if trial.arm == self.control), None)
        control_curve = self.curves[reference.train_fingerprint] if reference else {}
        groups: dict[str, list[RecordedTrial]] = defaultdict(list)
        for trial in trials:
            groups[trial.train_fingerprint].append(trial)
        for name, group in groups.items():
            for trial in self._train(group, self.curves[name], control_curve):
                if trial.result is not None:
                    self.results.setdefault(trial.arm, {})[trial.seed] = trial.result
        self.dropped = arms_to_drop(self.rules, self.results, ()) | self.dropped

    def _train(self, group: Sequence[RecordedTrial], curve: Curve, control_curve: Curve) -> list[RecordedTrial]:
        """Replay the trials of one training run. Returns those that finish."""
        running = [trial for trial in group if trial.arm not in self.dropped]
        found = self._stopping_point([t.arm for t in running], curve, control_curve) if running else None
        for trial in group:
            if trial not in running:
                is_trained_for_others = running and not found
                after = trial.spent_after(found[0].at if found else ALL)
                saved = trial.spent_on_export() if is_trained_for_others else after
                self.stopped.append((trial, *self.dropped[trial.arm], None, saved))
            elif found:
                self.stopped.append((trial, "curve", found[1], found[0], trial.spent_after(found[0].at)))
        return [] if found else running

    def _stopping_point(self, arms: list[str], curve: Curve, control_curve: Curve) -> tuple[Point, str] | None:
        """Return the first point at which the training run would have been stopped, and why."""
        for now in sorted((p for points in curve.values() for p in points), key=lambda point: point.step):
            past = {metric: [p for p in points if p.step <= now.step] for metric, points in curve.items()}
            reason = run_verdict(self.rules, arms, past, control_curve)
            if reason:
                return now, reason
        return None


def _notes(rules: Rules, trials: Sequence[RecordedTrial], curves: Mapping[str, Curve]) -> list[str]:
    """Say what could not be judged, so that "stops nothing" is not read as "does no harm"."""
    notes = []
    for metric, reads_curves in dict.fromkeys((rule.section.metric, rule.reads_curves) for rule in rules):
        if reads_curves:
            has_it = [bool(curves[trial.train_fingerprint].get(metric)) for trial in trials]
        else:
            has_it = [trial.result is not None and getattr(trial.result, metric) is not None for trial in trials]
        if not all(has_it):
            missing = dict.fromkeys(trial.arm for trial, has in zip(trials, has_it, strict=True) if not has)
            notes.append(f"{metric} is missing from {count_of(has_it.count(False), 'trial')}: {', '.join(missing)}")
    num_seeds = len({trial.seed for trial in trials})
    notes += filter(None, dict.fromkeys(rule.why_idle(num_seeds) for rule in rules))
    untimed = sum(not trial.shares for trial in trials)
    if untimed:
        notes.append(f"{untimed} of {count_of(len(trials), 'trial')} have no job times, so nothing is saved on them")
    return notes

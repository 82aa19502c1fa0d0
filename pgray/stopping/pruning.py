"""Kill rules: an arm that is worse than the control by more than a preset margin is stopped.

A rule on a curve metric judges a training run while it runs; a rule on an end metric judges an arm when a seed of it has
finished, and its remaining seeds are skipped. In every metric lower is better. A value that is missing or not finite is
never judged.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from statistics import median

from pgray.spec.stopping import KillRule
from pgray.stopping.curves import Curve, Point
from pgray.stopping.rule import Results, StoppingRule
from trainer.errors import InputError
from trainer.records.results import TrialResult

_SMOOTHED = 5  # points in a training loss's trailing median; a validation covers the whole split and needs none


class Pruning(StoppingRule[KillRule]):
    section_type = KillRule
    label = "seed"

    @property
    def reads_curves(self) -> bool:
        return self.section.is_on_curve

    def judge_results(self, results: Results, unfinished_seeds: Collection[int]) -> dict[str, str]:
        judged: dict[str, str] = {}
        controls = results.get(self.control, {})
        for arm in self._covered(results):
            pairs = ((result, controls[seed]) for seed, result in results[arm].items() if seed in controls)
            reason = next(filter(None, (seed_verdict(self.section, *pair) for pair in pairs)), None)
            judged |= {arm: reason} if reason else {}
        return judged

    def judge_curves(self, arms: Collection[str], curve: Curve, control_curve: Curve) -> dict[str, str]:
        reason = curve_verdict(self.section, curve, control_curve) if self.reads_curves else None
        return dict.fromkeys(self._covered(arms), reason) if reason else {}

    def check_arms(self, arms: Sequence[str], origin: str) -> None:
        if not self._covered(arms):
            others = ", ".join(arm for arm in arms if arm != self.control)
            fix = f"covers no arm other than the control; use one of {others}"
            raise InputError(origin, "arm", self.section.arm, fix)

    def why_idle(self, num_seeds: int) -> str | None:
        if num_seeds > 1 or self.reads_curves:
            return None
        return "the run has one seed: a rule on an end metric has no later seeds to skip"

    def _covered(self, arms: Collection[str]) -> list[str]:
        return [arm for arm in arms if self.section.covers(arm, self.control)]


def curve_verdict(rule: KillRule, curve: Curve, control_curve: Curve) -> str | None:
    """Compare a training run with the control's of the same seed, at the last point that both have reached.

    The control's curve is interpolated linearly. A training loss is smoothed by a trailing median on both sides.

    Returns:
        Why the run is to be stopped, None if it is not.
    """
    points, control = (_finite(c.get(rule.metric, ())) for c in (curve, control_curve))
    for index in reversed(range(len(points))):
        point, value = points[index], _smooth(rule, points, index)
        expected = _interpolated(rule, control, point)
        if expected is None:
            continue  # the control has not reached this point, or was first measured later
        if point.share <= rule.after_frac or not value - expected > rule.worse_than_control_by:
            return None
        return _reason(rule, value, expected, f"at step {point.step}, {point.share:.0%} of the run")
    return None


def seed_verdict(rule: KillRule, result: TrialResult, control_result: TrialResult) -> str | None:
    """Compare a finished trial with the control's of the same seed. Returns why its arm needs no further seeds, or None."""
    if rule.is_on_curve or result.seed != control_result.seed:
        return None
    value, expected = (getattr(r, rule.metric) for r in (result, control_result))
    if value is None or expected is None or not math.isfinite(value) or not math.isfinite(expected):
        return None
    if not value - expected > rule.worse_than_control_by:
        return None
    return _reason(rule, value, expected, f"with seed {result.seed}")


def _reason(rule: KillRule, value: float, expected: float, where: str) -> str:
    digits = ",.0f" if isinstance(value, int) else ".4f"
    worse, limit = format(value - expected, digits), f"{rule.worse_than_control_by:g}"
    return (
        f"{rule.metric} {value:{digits}} is worse than the control's {expected:{digits}} by {worse}, over {limit}, "
        f"{where} (rule {rule.text})"
    )


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point.value)]


def _smooth(rule: KillRule, points: Sequence[Point], index: int) -> float:
    if rule.metric != "train_loss_nats":
        return points[index].value
    return median(point.value for point in points[max(0, index + 1 - _SMOOTHED) : index + 1])


def _interpolated(rule: KillRule, points: Sequence[Point], where: Point) -> float | None:
    """Return the value of a curve at the step or share of another curve's point; None outside the measured range."""

    def position(point: Point) -> float:
        return point.step if rule.at == "step" else point.share

    right = bisect_left(points, position(where), key=position)
    if right == len(points):
        return None
    if position(points[right]) == position(where):
        return _smooth(rule, points, right)
    if right == 0:
        return None
    start, end = position(points[right - 1]), position(points[right])
    weight = (position(where) - start) / (end - start)
    return (1 - weight) * _smooth(rule, points, right - 1) + weight * _smooth(rule, points, right)

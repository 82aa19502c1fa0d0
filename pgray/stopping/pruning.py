"""Kill rules: an arm that is worse than the control by more than was agreed beforehand is not paid for to the end.

Pure functions from measurements to a verdict: the reason in one line, or None. A rule on a curve metric judges a training
run while it runs; a rule on an end metric judges an arm when a seed of it has finished, and its remaining seeds are
skipped. In every metric lower is better. What was not measured, or is not finite, is never judged.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from statistics import median

from pgray.spec.kill_rule import KillRule
from pgray.stopping.curves import Curve, Point
from trainer.records.results import TrialResult

_SMOOTHED = 5  # points in a training loss's trailing median; a validation is of the whole split and needs none


def curve_verdict(rule: KillRule, curve: Curve, control_curve: Curve) -> str | None:
    """Whether a training run stands worse than the control's of the same seed, at the last point that both have reached.

    Between two points of the control its curve is a straight line. A training loss is a trailing median on both sides.
    """
    points, control = (_finite(c.get(rule.metric, ())) for c in (curve, control_curve))
    for index in reversed(range(len(points))):
        point, value = points[index], _smooth(rule, points, index)
        expected = _interpolated(rule, control, point)
        if expected is None:
            continue  # the control has not got that far, or began later
        if point.share <= rule.after_frac or not value - expected > rule.worse_than_control_by:
            return None
        return _reason(rule, value, expected, f"at step {point.step}, {point.share:.0%} of the run")
    return None


def run_verdict(
    rules: Sequence[KillRule], arms: Collection[str], control: str, curve: Curve, control_curve: Curve
) -> str | None:
    """Whether a training run is to be stopped: every arm that needs its weights must be condemned by some rule."""
    reasons: list[str] = []
    for arm in arms:
        acting = (rule for rule in rules if rule.is_on_curve and rule.covers(arm, control))
        reason = next(filter(None, (curve_verdict(rule, curve, control_curve) for rule in acting)), None)
        if reason is None:
            return None
        reasons.append(reason)
    return reasons[0] if reasons else None


def seed_verdict(rule: KillRule, result: TrialResult, control_result: TrialResult) -> str | None:
    """Whether a finished trial is so much worse than the control's of the same seed that no more seeds are due."""
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
    """The value of a curve at the step or share of another's point; None outside of what was measured."""

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

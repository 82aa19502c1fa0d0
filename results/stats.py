"""Paired differences, Holm's correction and the challenge's rule, on plain numbers.

Which rows may be compared is `compare.py`'s business. Nothing here guesses: with one pair, or with differences that do
not vary, there is no interval and no p, and the result says why.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.limits import WIN_MIN_SEEDS, WIN_NATS, WIN_P_VALUE

Verdict = Literal["WIN", "LOSS", "NOISE", "TOO FEW SEEDS", "INFEASIBLE"]
_ROUNDING = 1e-12  # share of the values' size below which a spread is floating-point rounding, not variation


@dataclass(frozen=True)
class Paired:
    """Arm minus control over shared seeds, in the metric's unit. None = cannot be said; `note` says why."""

    n: int
    delta: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    note: str | None = None


def paired(arm: Sequence[float], control: Sequence[float], confidence: float = 0.95) -> Paired:
    """Mean paired difference with its t interval and the two-sided p of a paired t-test.

    Args:
        arm, control: values of the same seeds in the same order; finite.
        confidence: of the interval, 0..1.
    Returns:
        One pair: delta alone. Differences all zero: interval [0, 0] and p 1. Differences all equal but not zero: delta
        alone, since a t-test of constants would claim p = 0.
    Raises:
        ValueError: lengths differ, or a value is not finite.
    Source: Student's paired t-test, as in scipy.stats.ttest_rel.
    """
    if len(arm) != len(control):
        raise ValueError(f"paired values differ in number: {len(arm)} against {len(control)}")
    if not all(map(math.isfinite, [*arm, *control])):
        raise ValueError("a paired value is not finite")
    differences = [a - c for a, c in zip(arm, control, strict=True)]
    n = len(differences)
    if n == 0:
        return Paired(0, None, note="no seed in common with the control")
    delta = math.fsum(differences) / n
    if n == 1:
        return Paired(1, delta, note="one seed in common with the control: no interval")
    if not any(differences):
        return Paired(n, 0.0, 0.0, 0.0, 1.0, note="identical to the control on every seed: this arm changed nothing")
    if max(differences) - min(differences) <= _ROUNDING * max(map(abs, [*arm, *control])):
        return Paired(n, delta, note="the same difference on every seed: does the seed act? no interval")
    from scipy import stats  # a second to import, so only where there is something to test

    test = stats.ttest_rel(arm, control)
    interval = test.confidence_interval(confidence)
    return Paired(n, delta, float(interval.low), float(interval.high), float(test.pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p-values, in the order given; None stays None and does not count as a test.

    Guarantees: adjusted >= raw, <= 1, and in the same order of size.
    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = highest
    return adjusted


def nats_per_token(delta_bpb: float, scored_bytes: int, scored_tokens: int) -> float:
    """A difference in bits per byte as nats per token of the same evaluation."""
    return delta_bpb * math.log(2) * scored_bytes / scored_tokens


def verdict(delta_nats: float | None, p: float | None, num_pairs: int, is_feasible: bool) -> Verdict | None:
    """The challenge's rule: at least 0.005 nats per token better, p < 0.01, at least 3 seeds, within the cap.

    Args:
        delta_nats: arm minus control in nats per token; below zero is better. None = cannot be converted.
        p: of the difference, corrected for the number of arms looked at.
        num_pairs: seeds shared with the control.
        is_feasible: every seed of the arm is within the cap.
    Returns:
        LOSS mirrors WIN; NOISE is all between them, for want of size or of evidence. None: delta_nats is unknown.
    """
    if not is_feasible:
        return "INFEASIBLE"
    if num_pairs < WIN_MIN_SEEDS:
        return "TOO FEW SEEDS"
    if delta_nats is None:
        return None
    if p is not None and p < WIN_P_VALUE and abs(delta_nats) >= WIN_NATS:
        return "WIN" if delta_nats < 0 else "LOSS"
    return "NOISE"

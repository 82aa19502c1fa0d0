"""Statistics on plain numbers: differences over seeds, Holm's correction, and the seeds that the challenge's rule needs.

Without variation there is no interval and no p; the result's note gives the reason. Which rows may be compared is decided
in `results/analysis/comparability.py`, and the rule itself is in `results/analysis/verdicts.py`.
"""

import itertools
import math
import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from results.analysis.skew import sign_flip_p, t_test_note
from trainer.limits import WIN_MIN_SEEDS, WIN_NATS, WIN_P_VALUE

POWER = 0.8
"""Chance of detecting a true effect with `seeds_required` seeds."""

_MAX_SEEDS = 1_000_000
_ROUNDING = 1e-12  # a spread below this share of the values' size is floating-point rounding


@dataclass(frozen=True)
class Difference:
    """Arm minus control, in the metric's unit. None = unknown; `note` gives the reason.

    n: the pairs of a paired test; else the size of the smaller group. std: of one seed's difference, so that the mean of
    n of them has the standard error std / sqrt(n); for unpaired seeds sqrt(s_arm^2 + s_control^2). p is two-sided.
    p_permutation: from 8 pairs on.
    """

    n: int
    delta: float | None
    test: Literal["paired", "Welch"] | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    df: float | None = None
    std_error: float | None = None
    std: float | None = None
    note: str | None = None
    p_permutation: float | None = None

    @property
    def p_one_sided(self) -> float | None:
        """The p that the arm is no better than the control."""
        if self.p is None or self.delta is None:
            return None
        return self.p / 2 if self.delta <= 0 else 1 - self.p / 2


def difference(arm: Mapping[int, float], control: Mapping[int, float], confidence: float = 0.95) -> Difference:
    """Return arm minus control, paired by seed if at least two seeds are shared, else unpaired.

    Args:
        arm, control: seed -> value; finite.
        confidence: of the interval, 0..1.
    """
    seeds = paired_seeds(arm, control)
    if seeds:
        return paired([arm[seed] for seed in seeds], [control[seed] for seed in seeds], confidence)
    return welch(list(arm.values()), list(control.values()), confidence)


def paired_seeds(arm: Mapping[int, float], control: Mapping[int, float]) -> list[int]:
    """Return the seeds over which two arms are paired; [] if they do not pair, so that all seeds count."""
    shared = [seed for seed in arm if seed in control]
    return shared if len(shared) > 1 or min(len(arm), len(control)) == 1 else []


def paired(arm: Sequence[float], control: Sequence[float], confidence: float = 0.95) -> Difference:
    """Return the mean paired difference with its t interval and the two-sided p of a paired t-test.

    Args:
        arm, control: values of the same seeds in the same order; finite.
        confidence: of the interval, 0..1.
    Returns:
        One pair: delta alone. Differences all zero: interval [0, 0] and p 1. Differences all equal but not zero: delta
        alone, since a t-test of constants would claim p = 0.
    Raises:
        ValueError: lengths differ, or a value is not finite.
    Source: Student's paired t-test; agrees with scipy.stats.ttest_rel, which warns where values nearly agree.
    """
    if len(arm) != len(control):
        raise ValueError(f"paired values differ in number: {len(arm)} against {len(control)}")
    _check_finite(arm, control)
    differences = [a - c for a, c in zip(arm, control, strict=True)]
    n = len(differences)
    if n == 0:
        return Difference(0, None, note="no seed in common with the control")
    delta = math.fsum(differences) / n
    if n == 1:
        return Difference(1, delta, note="one seed in common with the control: no interval")
    if not any(differences):
        note = "identical to the control on every seed: this arm changed nothing"
        return Difference(
            n, 0.0, "paired", 0.0, 0.0, 1.0, n - 1, 0.0, 0.0, note, p_permutation=sign_flip_p(differences)
        )
    if _is_constant(differences, size=max(map(abs, [*arm, *control]))):
        return Difference(n, delta, note="the same difference on every seed (is the seed used?): no interval")
    std = statistics.stdev(differences)
    test = _t_test("paired", n, delta, std / math.sqrt(n), n - 1, std, confidence)
    p_permutation = sign_flip_p(differences)
    return replace(test, note=t_test_note(differences, test.p or 0.0, p_permutation), p_permutation=p_permutation)


def welch(arm: Sequence[float], control: Sequence[float], confidence: float = 0.95) -> Difference:
    """Return the difference of means of unpaired seeds with the interval and the two-sided p of Welch's t-test.

    Returns:
        With fewer than two seeds on a side, or no variation on either: delta alone.
    Raises:
        ValueError: a value is not finite.
    Source: B. L. Welch, The generalization of Student's problem, 1947; agrees with scipy.stats.ttest_ind.
    """
    _check_finite(arm, control)
    n = min(len(arm), len(control))
    if n == 0:
        return Difference(0, None)  # the row's counts show what is missing
    delta = math.fsum(arm) / len(arm) - math.fsum(control) / len(control)
    if n == 1:
        return Difference(
            1, delta, note="no seed in common with the control, and one side has a single seed: no interval"
        )
    size = max(map(abs, [*arm, *control]))
    if _is_constant(arm, size) and _is_constant(control, size):
        return Difference(n, delta, note="the same value on every seed (is the seed used?): no interval")
    per_seed = statistics.variance(arm), statistics.variance(control)
    of_mean = per_seed[0] / len(arm), per_seed[1] / len(control)
    df = sum(of_mean) ** 2 / (of_mean[0] ** 2 / (len(arm) - 1) + of_mean[1] ** 2 / (len(control) - 1))
    note = "seeds do not pair: Welch's test"
    return _t_test("Welch", n, delta, math.sqrt(sum(of_mean)), df, math.sqrt(sum(per_seed)), confidence, note)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's step-down adjusted p-values in the order given; None stays None and does not count as a test.

    Guarantees: adjusted >= raw, <= 1, and in the same order of size.
    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    # statsmodels' multipletests takes a tenth of a second per call (garbage collection); a test compares the two.
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    scaled = (min(1.0, (len(order) - rank) * p) for rank, (p, _) in enumerate(order))
    adjusted = {i: highest for (_, i), highest in zip(order, itertools.accumulate(scaled, max), strict=True)}
    return [adjusted.get(i) for i in range(len(p_values))]


def nats_per_token(delta_bpb: float, scored_bytes: int, scored_tokens: int) -> float:
    """Convert a difference in bits per byte to nats per token of the same evaluation."""
    return delta_bpb * math.log(2) * scored_bytes / scored_tokens


def p_margin(delta_nats: float, std_error_nats: float, df: float) -> float:
    """Return the one-sided p that the true improvement is below 0.005 nats.

    This is the literal reading of the rule ("show at p < 0.01 that they achieved the required 0.005-nat improvement"), far
    stricter than `verdict`, which tests against zero.
    """
    if not std_error_nats:
        return float(delta_nats > -WIN_NATS)
    from scipy import special

    return float(special.stdtr(df, (delta_nats + WIN_NATS) / std_error_nats))


def seeds_required(std_nats: float, effect_nats: float = WIN_NATS, num_tests: int = 1) -> int | None:
    """Return the seeds with which a true effect of this size is significant, in its direction, 8 times in 10.

    The smallest n >= 3 with P(T > t(1 - a/2, n - 1)) >= 0.8, where a = 0.01 / num_tests (Holm's first step) and T has
    the noncentral t distribution with n - 1 degrees of freedom and noncentrality sqrt(n) * effect_nats / std_nats. It
    depends on the observed std, whose own standard error is half of it with 3 seeds. For unpaired seeds, n is per arm and
    slightly too large: the degrees of freedom are between n - 1 and 2n - 2.

    Args:
        std_nats: of one seed's difference, in nats per token.
        effect_nats: above zero; values below 0.005, the rule's smallest effect, count as 0.005.
        num_tests: number of differences in the correction.
    Returns:
        None: more than a million.
    Source: J. Cohen, Statistical power analysis for the behavioral sciences, 1988; the power of the t-test.
    """
    if std_nats <= 0:
        return WIN_MIN_SEEDS
    from scipy import special

    ratio = max(effect_nats, WIN_NATS) / std_nats

    def is_enough(n: int) -> bool:
        threshold = special.stdtrit(n - 1, 1 - WIN_P_VALUE / num_tests / 2)
        missed = special.nctdtr(n - 1, math.sqrt(n) * ratio, threshold)
        return not missed > 1 - POWER  # nan: a chance too small for scipy

    n = bisect_left(range(_MAX_SEEDS + 1), True, lo=WIN_MIN_SEEDS, key=is_enough)
    return n if n <= _MAX_SEEDS else None


def _t_test(
    test: Literal["paired", "Welch"], n: int, delta: float, std_error: float, df: float, std: float,
    confidence: float, note: str | None = None,
) -> Difference:  # fmt: skip
    from scipy import special  # scipy.stats gives the same, a hundred times slower

    half_width = float(special.stdtrit(df, (1 + confidence) / 2)) * std_error
    p = 2 * float(special.stdtr(df, -abs(delta) / std_error))
    return Difference(n, delta, test, delta - half_width, delta + half_width, p, df, std_error, std, note)


def _check_finite(*groups: Sequence[float]) -> None:
    if not all(math.isfinite(value) for group in groups for value in group):
        raise ValueError("a compared value is not finite")


def _is_constant(values: Sequence[float], size: float) -> bool:
    return max(values) - min(values) <= _ROUNDING * size

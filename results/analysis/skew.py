"""What the t test cannot see in skewed differences: an exact permutation p from 8 pairs on, a warning below that."""

import math
import statistics
from collections.abc import Sequence

from trainer.limits import WIN_P_VALUE

MIN_PAIRS, MAX_PAIRS = 8, 40
"""Pairs with which the permutation p is computed: with fewer it cannot go below 0.01, with more it would take minutes."""

_SKEW_LIMITS = {3: 0.705, 4: 1.070, 5: 1.207, 6: 1.239, 7: 1.231}
"""Pairs -> absolute sample skewness that 5 % of normal samples exceed. Source: 4,000,000 simulated samples of each size."""


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Return the exact two-sided p of the sign-flip permutation test of a zero mean; None outside 8 to 40 pairs.

    It is the share of the 2^n choices of signs in which the sum of the differences is at least as far from zero as
    observed. It assumes only that without an effect each difference is as likely as its negative.
    Source: R. A. Fisher, The design of experiments, 1935.
    """
    n = len(differences)
    if not MIN_PAIRS <= n <= MAX_PAIRS:
        return None
    import numpy as np

    # All sums of the first half, and those of the second half in order: two searches count the sums at least as far.
    halves = []
    for part in (differences[: n // 2], differences[n // 2 :]):
        sums = np.zeros(1)
        for value in part:
            sums = np.concatenate([sums - value, sums + value])
        halves.append(np.sort(sums))
    first, second = halves
    observed = abs(math.fsum(differences)) - 1e-12 * math.fsum(map(abs, differences))  # equal sums differ by rounding
    above = len(second) * len(first) - np.searchsorted(second, observed - first, "left").sum()
    below = np.searchsorted(second, -observed - first, "right").sum()
    return min(1.0, float(above + below) / 2.0**n)


def skewness(values: Sequence[float]) -> float:
    """Return the sample skewness m3 / m2^1.5; 0 without variation."""
    mean = statistics.fmean(values)
    squares = statistics.fmean((value - mean) ** 2 for value in values)
    return statistics.fmean((value - mean) ** 3 for value in values) / squares**1.5 if squares else 0.0


def t_test_note(differences: Sequence[float], p: float, p_permutation: float | None) -> str | None:
    """Return why the p of the t test should not be relied on: visible skew, or a permutation test that disagrees."""
    n = len(differences)
    if p_permutation is not None and (p < WIN_P_VALUE) != (p_permutation < WIN_P_VALUE):
        return f"t test and permutation test disagree: p {p:.2g} against {p_permutation:.2g}"
    limit = _SKEW_LIMITS.get(n)
    if limit is None or abs(skew := skewness(differences)) <= limit:
        return None
    return f"skewed differences (skewness {skew:+.2f} over {n} pairs): p may be too small"

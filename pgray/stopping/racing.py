"""Seed racing: a few seeds for every arm, more only for arms that may still be the best.

An arm a leaves the race when some rival b beats it beyond doubt. Over the n seeds that both have, with the mean paired
difference d of a - b, that is when

    d > t(1 - alpha, df) * s * sqrt(2 / n),    alpha = (1 - confidence) / (k - 1) / (i * (i + 1))

so: when the one-sided confidence interval of the paired difference lies above 0. s^2 is the seed noise pooled over all
arms: the residual variance of value = arm + seed, fitted by least squares to every value there is, with df its degrees
of freedom. k is the number of arms, i = n - first + 1 counts the looks at a pair. Sum of 1 / (i (i + 1)) over all looks
is 1, so by Bonferroni's inequality the truly best arm is dropped, over the whole race and however long it is, with a
probability of at most 1 - confidence; also where all arms are equal. This is Gupta's subset selection with Bonferroni's
bound in the place of Dunnett's critical value, which holds for unequal numbers of seeds too. It takes the noise to be
normal and of one size in all arms; an arm that is noisier than the others makes it drop less.
Asked in the middle of a seed, it tests the same pairs again with another s; such looks are not counted, so that the
bound is nearly used up. Ask when a seed is complete.

Source: S. S. Gupta, On some multiple decision (selection and ranking) rules, Technometrics 7, 1965.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from statistics import fmean

from pgray.spec.race import Race

_ROUNDING = 1e-12  # share of the values' size below which their noise is floating-point rounding: then nothing is known


def verdicts(race: Race, results: Mapping[str, Mapping[int, float]], control: str | None = None) -> dict[str, str]:
    """Arms that leave the race, each with the reason in one line.

    Args:
        results: arm -> seed -> value of the race's metric, lower is better; of every arm that takes part, those that
            have left included. A value that is not finite counts as not there.
        control: is never dropped, since the others are compared with it on every seed.
    Returns:
        In the order of `results`. Empty where there is no noise to be seen, or too few seeds. A verdict stays: the
        caller remembers who has left, since an arm that gets no more seeds is not tested again as the race goes on.
    """
    values = {arm: {s: v for s, v in by_seed.items() if math.isfinite(v)} for arm, by_seed in results.items()}
    noise = _noise(values)
    if noise is None:
        return {}
    left: dict[str, str] = {}
    for arm in values:
        if arm != control:
            beaten = [defeat for rival in values if (defeat := _defeat(race, values, arm, rival, noise))]
            if beaten:
                _, _, left[arm] = max(beaten)
    return left


def _defeat(
    race: Race, values: Mapping[str, Mapping[int, float]], arm: str, rival: str, noise: tuple[float, int]
) -> tuple[float, str, str] | None:
    """How clearly `rival` beats `arm`, its name, and the reason; None where it does not."""
    shared = values[arm].keys() & values[rival].keys()
    n = len(shared)
    if n < race.first or arm == rival:
        return None
    std, df = noise
    difference = math.fsum(values[arm][seed] - values[rival][seed] for seed in sorted(shared)) / n
    look = n - race.first + 1
    alpha = (1 - race.confidence) / (len(values) - 1) / (look * (look + 1))
    needed = _critical_t(alpha, df) * std * math.sqrt(2 / n)
    if not difference > needed:
        return None
    reason = (
        f"out of the race: {race.metric} {fmean(values[arm].values()):.4f} is worse than {rival}'s by {difference:.4f} "
        f"over {n} shared seeds; over {needed:.4f} is beyond doubt ({race.confidence:.0%}, {len(values)} arms)"
    )
    return difference / needed, rival, reason


def _noise(values: Mapping[str, Mapping[int, float]]) -> tuple[float, int] | None:
    """Standard deviation and degrees of freedom of value - arm - seed, pooled; None where it cannot be estimated."""
    import numpy as np

    cells = [(arm, seed, values[arm][seed]) for arm in sorted(values) for seed in sorted(values[arm])]
    if not cells:
        return None
    arms = {arm: column for column, arm in enumerate(dict.fromkeys(arm for arm, _, _ in cells))}
    seeds = {seed: len(arms) + column for column, seed in enumerate(dict.fromkeys(seed for _, seed, _ in cells))}
    design = np.zeros((len(cells), len(arms) + len(seeds)))
    for row, (arm, seed, _) in enumerate(cells):
        design[row, [arms[arm], seeds[seed]]] = 1
    y = np.array([value for _, _, value in cells])
    scale = float(np.abs(y).max())
    y = y - y.mean()  # the fit is the same, and loses fewer digits
    coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    df = len(y) - int(rank)
    if df < 1:
        return None
    std = math.sqrt(float(np.sum((y - design @ coefficients) ** 2)) / df)
    return (std, df) if std > _ROUNDING * scale else None


@lru_cache(maxsize=1024)
def _critical_t(alpha: float, df: int) -> float:
    from scipy import stats  # a second to import, so only where there is something to test

    return float(stats.t.isf(alpha, df))

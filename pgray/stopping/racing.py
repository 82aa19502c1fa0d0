"""Seed racing: a few seeds for every arm, more only for arms that may still be the best.

An arm a is eliminated when it is significantly worse than some rival b. With d the mean paired difference a - b over the n
seeds that both have, that is when

    d > t(1 - alpha, df) * s * sqrt(2 / n),    alpha = (1 - confidence) / (k - 1) / (i * (i + 1))

that is, when the one-sided confidence interval of the paired difference lies above 0. s^2 is the seed noise pooled over
all arms: the residual variance of value = arm + seed, fitted by least squares to all values, with df its degrees of
freedom. k is the number of arms; i = n - first + 1 counts the tests of a pair. The sum of 1 / (i (i + 1)) over all tests
is 1, so by Bonferroni's inequality the truly best arm is dropped with a probability of at most 1 - confidence over the
whole race, however long it is, also if all arms are equal. This is Gupta's subset selection with Bonferroni's bound
instead of Dunnett's critical value; unlike that, it holds for unequal numbers of seeds. It assumes normal noise of equal
size in all arms; one arm that is noisier than the others makes it drop fewer.
Unfinished seeds are not tested: each test spends part of the error budget, and a test in the middle of a seed would not be
counted.

Source: S. S. Gupta, On some multiple decision (selection and ranking) rules, Technometrics 7, 1965.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from statistics import fmean

from pgray.spec.stopping import Race
from pgray.stopping.rule import Results, StoppingRule

_ROUNDING = 1e-12  # noise below this share of the values is floating-point rounding and tells nothing


class Racing(StoppingRule[Race]):
    section_type = Race
    label = "race"

    def judge_results(self, results: Results, unfinished_seeds: Collection[int]) -> dict[str, str]:
        values = {
            arm: {
                seed: float(value)
                for seed, result in by_seed.items()
                if seed not in unfinished_seeds and (value := getattr(result, self.section.metric)) is not None
            }
            for arm, by_seed in results.items()
        }
        return verdicts(self.section, values, self.control)

    def held_back_seeds(self, seeds: Sequence[int], unfinished_seeds: Collection[int]) -> set[int]:
        """Later seeds wait until every arm has finished the earlier ones; the first seeds run freely."""
        first = next((index for index, seed in enumerate(seeds) if seed in unfinished_seeds), len(seeds))
        return set(seeds[max(first + 1, self.section.first) :])

    def why_idle(self, num_seeds: int) -> str | None:
        first = self.section.first
        return f"the race gives every arm {first} seeds, and the run has no more" if num_seeds <= first else None


def verdicts(race: Race, results: Mapping[str, Mapping[int, float]], control: str | None = None) -> dict[str, str]:
    """Return the arms that the race eliminates, each with the reason in one line.

    Args:
        results: arm -> seed -> value of the race's metric, lower is better; of every arm, eliminated ones included. A
            value that is not finite counts as missing.
        control: is never eliminated, since the others are compared with it on every seed.
    Returns:
        In the order of `results`. Empty if the noise cannot be estimated or there are too few seeds. A verdict is final:
        the caller remembers it, since an eliminated arm gets no more seeds.
    """
    values = {arm: {s: v for s, v in by_seed.items() if math.isfinite(v)} for arm, by_seed in results.items()}
    noise = _noise(values)
    if noise is None:
        return {}
    eliminated: dict[str, str] = {}
    for arm in values:
        if arm != control:
            beaten = [defeat for rival in values if (defeat := _defeat(race, values, arm, rival, noise))]
            if beaten:
                _, _, eliminated[arm] = max(beaten)
    return eliminated


def _defeat(
    race: Race, values: Mapping[str, Mapping[int, float]], arm: str, rival: str, noise: tuple[float, int]
) -> tuple[float, str, str] | None:
    """Return how clearly `rival` beats `arm` (over 1), its name, and the reason; None if it does not."""
    shared = values[arm].keys() & values[rival].keys()
    n = len(shared)
    if n < race.first or arm == rival:
        return None
    std, df = noise
    difference = math.fsum(values[arm][seed] - values[rival][seed] for seed in sorted(shared)) / n
    test = n - race.first + 1
    alpha = (1 - race.confidence) / (len(values) - 1) / (test * (test + 1))
    needed = _critical_t(alpha, df) * std * math.sqrt(2 / n)
    if not difference > needed:
        return None
    reason = (
        f"eliminated by the race: {race.metric} {fmean(values[arm].values()):.4f} is worse than {rival}'s by {difference:.4f} "
        f"over {n} shared seeds, which exceeds the {race.confidence:.0%} threshold of {needed:.4f} ({len(values)} arms)"
    )
    return difference / needed, rival, reason


def _noise(values: Mapping[str, Mapping[int, float]]) -> tuple[float, int] | None:
    """Return the pooled standard deviation of value - arm - seed and its degrees of freedom; None if not estimable."""
    import numpy as np

    cells = [(arm, seed, values[arm][seed]) for arm in sorted(values) for seed in sorted(values[arm])]
    if not cells:
        return None
    arms, seeds, y = (np.array(column) for column in zip(*cells, strict=True))
    design = np.hstack([x[:, None] == np.unique(x) for x in (arms, seeds)]).astype(float)
    scale = float(np.abs(y).max())
    y = y - y.mean()  # the same fit with less rounding
    coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    df = len(y) - int(rank)
    if df < 1:
        return None
    std = math.sqrt(float(np.sum((y - design @ coefficients) ** 2)) / df)
    return (std, df) if std > _ROUNDING * scale else None


@lru_cache(maxsize=1024)
def _critical_t(alpha: float, df: int) -> float:
    from scipy import stats  # takes a second to import, and most runs have nothing to test

    return float(stats.t.isf(alpha, df))

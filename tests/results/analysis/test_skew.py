"""The permutation p against a plain enumeration and scipy, and the warnings on skewed differences.

`python -m tests.results.analysis.test_skew` prints how often skewed seeds without an effect reach p < 0.01.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator, default_rng
from scipy import stats

import results
from results.analysis.skew import _SKEW_LIMITS, MAX_PAIRS, MIN_PAIRS, sign_flip_p, skewness
from results.analysis.statistics import paired
from results.schema import frame
from trainer.limits import WIN_P_VALUE


def enumerated(differences: list[int]) -> float:
    """The definition, in whole numbers: every choice of signs one by one."""
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(abs(total) >= abs(sum(differences)) for total in sums) / len(sums)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=8, max_size=10))
def test_permutation_p_is_exact(differences: list[int]) -> None:
    """With ties, which small whole numbers give, and after scaling to values that binary fractions cannot hold."""
    expected = enumerated(differences)
    assert sign_flip_p(differences) == expected
    assert sign_flip_p([d * 1e-4 for d in differences]) == expected


def test_permutation_p_equals_scipy() -> None:
    differences = default_rng(1).normal(0.5, 1, 11)
    exact = stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(differences.tolist()) == pytest.approx(exact.pvalue)


def test_permutation_p_from_8_to_40_pairs() -> None:
    assert sign_flip_p([1.0] * (MIN_PAIRS - 1)) is None
    assert sign_flip_p([1.0] * MIN_PAIRS) == 2 / 2**8
    assert sign_flip_p([1.0] * 30) == 2 / 2**30
    assert sign_flip_p([1.0] * (MAX_PAIRS + 1)) is None


@pytest.mark.parametrize("n", _SKEW_LIMITS)
def test_normal_samples_exceed_the_limit_of_skewness_in_5_percent(n: int) -> None:
    samples = default_rng(n).normal(size=(40_000, n))
    found = stats.skew(samples, axis=1)
    assert np.mean(np.abs(found) > _SKEW_LIMITS[n]) == pytest.approx(0.05, abs=0.005)
    assert skewness(samples[0].tolist()) == pytest.approx(found[0])


def test_one_bad_seed_is_warned_of() -> None:
    control = [2.50, 2.52, 2.49, 2.51, 2.48]
    bad = paired([c - d for c, d in zip(control, (0.010, 0.011, 0.009, 0.010, 0.060), strict=True)], control)
    assert bad.note == "skewed differences (skewness -1.50 over 5 pairs): p may be too small"
    even = paired([c - d for c, d in zip(control, (0.010, 0.012, 0.008, 0.011, 0.009), strict=True)], control)
    assert even.note is None


def test_a_permutation_test_that_disagrees_is_told() -> None:
    """One large difference hides seven equal ones from the t test, but not their signs from the permutation test."""
    gains = [0.010, 0.011, 0.012, 0.010, 0.011, 0.012, 0.010, 0.150]
    rows = [
        {"arm": arm, "seed": seed, "status": "finished", "sliding_bpb": 2.5 - (gain if arm == "b" else 0.0)}
        for arm in "ab" for seed, gain in enumerate(gains)
    ]  # fmt: skip
    line = results.ablation(frame(rows)).set_index("arm").loc["b"]
    assert line["p_permutation"] == 2 / 2**8
    assert "t test and permutation test disagree: p 0.15 against 0.0078" in line["reason"]


DRAWS = 20_000
SKEWED: dict[str, Callable[[Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(0, 1, shape),
    "1 bad seed in 10": lambda rng, shape: rng.normal(0, 1, shape) + 10 * (rng.random(shape) < 0.1),
    "log-normal": lambda rng, shape: rng.lognormal(0, 1, shape),
}


def false_positives(kind: str, n: int, *, both: bool, draws: int = DRAWS) -> tuple[float, float]:
    """Return the share of p < 0.01 of the t test and of the permutation test, although the means are equal.

    both: arm and control have such seeds, so the arm does nothing at all; else only the arm has them.
    """
    draw, rng = SKEWED[kind], default_rng(20240520 + n)
    samples = draw(rng, (draws, n)) - (draw(rng, (draws, n)) if both else draw(rng, (1_000_000, 1)).mean())
    t = stats.ttest_1samp(samples, 0, axis=1).pvalue
    flips = [p for sample in samples[: draws // 4] if (p := sign_flip_p(sample.tolist())) is not None]
    return float(np.mean(t < WIN_P_VALUE)), float(np.mean(np.array(flips) < WIN_P_VALUE)) if flips else math.nan


@pytest.mark.parametrize("kind", SKEWED)
def test_an_arm_without_any_effect_is_seldom_significant_however_skewed_its_seeds(kind: str) -> None:
    t, permuted = false_positives(kind, 8, both=True, draws=4000)
    assert max(t, permuted) <= 0.015


if __name__ == "__main__":
    for name in SKEWED:
        for both in (True, False):
            for size in (3, 5, 8, 12):
                shares = " / ".join(f"{share:.2%}" for share in false_positives(name, size, both=both))
                print(f"{name}, {'both sides' if both else 'arm only'}, {size} pairs: p < 0.01 in {shares}")

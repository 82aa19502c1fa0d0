"""Intervals hold the truth as often as they say, and a difference of nothing is seldom called a WIN: by simulation.

Fixed seeds, so the figures are always the same; `python -m tests.results.analysis.test_coverage` prints them. With
2,000 draws a share of 0.95 has a standard error of 0.005.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.random import Generator, default_rng

from results.analysis.effects import _Cross, _fit
from results.analysis.statistics import difference, holm, paired, seeds_required, welch
from results.analysis.verdicts import by_numbers
from trainer.limits import WIN_NATS

DRAWS = 2000
TRUTH = -0.01
Interval = tuple[float | None, float | None, float]  # low, high, truth


def runs(rng: Generator, n: int, effect: float, noise: float) -> tuple[list[float], list[float]]:
    """Arm and control on n shared seeds: seeds differ by far more than the noise between arms."""
    base = rng.normal(2.4, 0.05, n)
    return (base + effect + rng.normal(0, noise, n)).tolist(), base.tolist()


def paired_seeds(n: int) -> Iterator[Interval]:
    rng = default_rng(20240520 + n)
    for _ in range(DRAWS):
        got = paired(*runs(rng, n, TRUTH, 0.004))
        yield got.ci_low, got.ci_high, TRUTH


def unrelated_seeds(sizes: tuple[int, int], spreads: tuple[float, float]) -> Iterator[Interval]:
    rng = default_rng(20240520)
    for _ in range(DRAWS):
        arm, control = (rng.normal(0, spread, size).tolist() for size, spread in zip(sizes, spreads, strict=True))
        got = welch(arm, control)
        yield got.ci_low, got.ci_high, 0.0


def factorial(chosen: str) -> Iterator[Interval]:
    """A 2 x 3 cross on four seeds, with an interaction."""
    rng = default_rng(20240520)
    cross = _Cross({"a": ["0", "1"], "b": ["0", "1", "2"]}, {f"{a}{b}": 3 * a + b for a in range(2) for b in range(3)})
    truth = rng.normal(0, 0.01, len(cross.cell))
    weights = next(w for term, _, w in cross.contrasts() if term == chosen)
    for _ in range(DRAWS):
        y = truth + rng.normal(2.4, 0.05, (4, 1)) + rng.normal(0, 0.004, (4, 6))
        rows = [{"arm": arm, "seed": seed, "x": y[seed, cell]} for seed in range(4) for arm, cell in cross.cell.items()]
        model, _ = _fit(rows, cross, "x")
        assert model is not None
        line = model(weights)
        yield line["ci_low"], line["ci_high"], float(weights @ truth)


CASES: dict[str, Callable[[], Iterator[Interval]]] = {
    "paired, 3 seeds": lambda: paired_seeds(3),
    "paired, 5 seeds": lambda: paired_seeds(5),
    "Welch, 5 and 5 seeds": lambda: unrelated_seeds((5, 5), (0.01, 0.01)),
    "Welch, 6 and 10 seeds, unequal spread": lambda: unrelated_seeds((6, 10), (0.02, 0.005)),
    "main effect, 2 x 3 cross, 4 seeds": lambda: factorial("a"),
    "interaction, 2 x 3 cross, 4 seeds": lambda: factorial("a × b"),
}


def coverage(case: str) -> float:
    inside = [low is not None and high is not None and low <= truth <= high for low, high, truth in CASES[case]()]
    assert len(inside) == DRAWS
    return float(np.mean(inside))


@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_the_truth_as_often_as_they_say(case: str) -> None:
    assert 0.94 <= coverage(case) <= 0.96


def false_wins(num_arms: int, n: int, std_nats: float) -> float:
    """Share of tables with a WIN although no arm does anything. All arms share the control, as in a sweep."""
    rng = default_rng(20240520)
    wins = 0
    for _ in range(DRAWS):
        control = dict(enumerate(rng.normal(4.0, 0.05, n).tolist()))
        tests = [
            difference({seed: value + rng.normal(0, std_nats) for seed, value in control.items()}, control)
            for _ in range(num_arms)
        ]
        corrected = holm([test.p for test in tests])
        wins += any(by_numbers(t.delta, None, p, t.n) == "WIN" for t, p in zip(tests, corrected, strict=True))
    return wins / DRAWS


@pytest.mark.parametrize(("num_arms", "n"), [(1, 3), (6, 3), (6, 8)])
def test_nothing_is_seldom_called_a_win(num_arms: int, n: int) -> None:
    """With noise of ten times the rule's 0.005 nats nearly every difference is large enough, so only p stands guard."""
    assert false_wins(num_arms, n, 10 * WIN_NATS) <= 0.01


def test_seeds_required_have_the_power_that_they_promise() -> None:
    rng = default_rng(20240520)
    std = 0.004
    n = seeds_required(std)
    assert n is not None
    tests = (paired(*runs(rng, n, -WIN_NATS, std)) for _ in range(DRAWS))
    significant = [t.p is not None and t.p < 0.01 and t.delta is not None and t.delta < 0 for t in tests]
    assert 0.77 < np.mean(significant) < 0.9  # 80 % or, as seeds are whole, a little more


if __name__ == "__main__":
    for name in CASES:
        print(f"{name}: 95 % interval covers {coverage(name):.2%} of {DRAWS:,} (± {math.sqrt(0.0475 / DRAWS):.2%})")
    for arms, seeds in ((1, 3), (6, 3), (6, 8)):
        print(
            f"{arms} arms without effect, {seeds} seeds: a WIN in {false_wins(arms, seeds, 10 * WIN_NATS):.2%} of tables"
        )

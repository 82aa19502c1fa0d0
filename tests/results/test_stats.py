"""Statistics against formulas written out by hand and against scipy's other routes to the same number."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from results.stats import holm, nats_per_token, paired, verdict

ARM = [2.4101, 2.4203, 2.4055, 2.4120]
CONTROL = [2.4412, 2.4460, 2.4401, 2.4377]


def test_paired_equals_the_formula_by_hand() -> None:
    differences = [a - c for a, c in zip(ARM, CONTROL, strict=True)]
    n = len(differences)
    mean = sum(differences) / n
    std = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
    t = mean / (std / math.sqrt(n))
    # Two-sided tail of Student's t by the regularized incomplete beta function; t quantile by the table for df 3.
    p = float(special.betainc((n - 1) / 2, 0.5, (n - 1) / ((n - 1) + t * t)))
    half = 3.182446305284263 * std / math.sqrt(n)
    got = paired(ARM, CONTROL)
    assert got.n == 4
    assert got.delta == pytest.approx(mean, rel=1e-12)
    assert got.p == pytest.approx(p, rel=1e-9)
    assert (got.ci_low, got.ci_high) == pytest.approx((mean - half, mean + half), rel=1e-9)


def test_pairing_beats_the_spread_between_seeds() -> None:
    """Seeds that differ by 0.1 hide nothing when every one of them shows the same small gain."""
    base = [2.30, 2.40, 2.50]
    better = [2.2899, 2.3901, 2.4900]
    together = paired(better, base).p
    apart = float(stats.ttest_ind(better, base, equal_var=False).pvalue)
    assert together is not None
    assert together < 0.001 < 0.5 < apart


def test_one_pair_has_a_delta_and_nothing_else() -> None:
    got = paired([2.4], [2.5])
    assert got.delta == pytest.approx(-0.1)
    assert (got.ci_low, got.ci_high, got.p) == (None, None, None)
    assert got.note is not None


def test_no_pair() -> None:
    assert paired([], []).delta is None


def test_identical_values_are_called_identical() -> None:
    got = paired(ARM, ARM)
    assert (got.delta, got.ci_low, got.ci_high, got.p) == (0, 0, 0, 1)
    assert got.note is not None
    assert "identical" in got.note


def test_constant_difference_claims_no_certainty() -> None:
    got = paired([x - 0.01 for x in CONTROL], CONTROL)
    assert got.delta == pytest.approx(-0.01)
    assert got.p is None
    assert got.ci_low is None
    assert got.note is not None


def test_nan_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        paired([math.nan, 1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="number"):
        paired([1.0], [1.0, 2.0])


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = random.Random(20240520)
    truth, covered, draws = -0.01, 0, 1000
    for _ in range(draws):
        base = [rng.gauss(2.4, 0.05) for _ in range(5)]
        arm = [b + rng.gauss(truth, 0.004) for b in base]
        got = paired(arm, base)
        assert got.ci_low is not None
        assert got.ci_high is not None
        covered += got.ci_low <= truth <= got.ci_high
    assert 0.93 <= covered / draws <= 0.97  # three standard errors of 1,000 draws at 0.95


def _holm_by_definition(p_values: list[float]) -> list[float]:
    """max over j <= i of min(1, (m - j) p_(j)), written from the paper."""
    ordered = sorted(p_values)
    m = len(ordered)
    return [max(min(1.0, (m - j) * ordered[j]) for j in range(ordered.index(p) + 1)) for p in p_values]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12, unique=True))
def test_holm_equals_its_definition(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert adjusted == pytest.approx(_holm_by_definition(p_values))
    by_raw = [q for _, q in sorted(zip(p_values, adjusted, strict=True))]
    assert all(q is not None and p <= q <= 1 for p, q in zip(sorted(p_values), by_raw, strict=True))


def test_holm_example_of_four() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_does_not_count_what_was_not_tested() -> None:
    assert holm([None, 0.02, None]) == [None, 0.02, None]
    assert holm([]) == []


def test_nats_of_the_published_tokenizer() -> None:
    """contracts.md: the sp1024 validation split; techniques.md: bpb / nats = 0.59226."""
    assert 1 / nats_per_token(1.0, 151_080_363, 62_021_632) == pytest.approx(0.59226, abs=5e-6)


@pytest.mark.parametrize(
    ("delta_nats", "p", "pairs", "feasible", "expected"),
    [
        (-0.005, 0.009, 3, True, "WIN"),
        (-0.0049, 0.001, 3, True, "NOISE"),
        (-0.05, 0.01, 3, True, "NOISE"),
        (0.02, 0.001, 5, True, "LOSS"),
        (-0.05, None, 3, True, "NOISE"),
        (-0.05, 0.001, 2, True, "TOO FEW SEEDS"),
        (-0.05, 0.001, 3, False, "INFEASIBLE"),
        (-0.05, 0.001, 1, False, "INFEASIBLE"),
        (None, 0.001, 3, True, None),
    ],
)
def test_the_rule(delta_nats: float | None, p: float | None, pairs: int, feasible: bool, expected: str | None) -> None:
    assert verdict(delta_nats, p, pairs, feasible) == expected

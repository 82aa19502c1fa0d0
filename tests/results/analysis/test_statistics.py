"""Statistics against formulas written out by hand, and against scipy and statsmodels. Coverage: test_coverage.py."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from results.analysis.statistics import (
    difference,
    holm,
    nats_per_token,
    p_margin,
    paired,
    seeds_required,
    welch,
)

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


FEW = st.lists(st.floats(1.0, 3.0), min_size=2, max_size=6)


def _varies(values: list[float]) -> bool:
    return max(values) - min(values) > 1e-6  # scipy warns where values nearly agree


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(1.0, 3.0), st.floats(1.0, 3.0)), min_size=2, max_size=6), st.floats(0.5, 0.999))
def test_paired_equals_scipy(pairs: list[tuple[float, float]], confidence: float) -> None:
    arm, control = map(list, zip(*pairs, strict=True))
    if not _varies([a - c for a, c in pairs]):
        return
    got, expected = paired(arm, control, confidence), stats.ttest_rel(arm, control)
    interval = expected.confidence_interval(confidence)
    assert got.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-300)
    assert (got.ci_low, got.ci_high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)
    assert got.df == expected.df


@settings(max_examples=50, deadline=None)
@given(FEW, FEW, st.floats(0.5, 0.999))
def test_welch_equals_scipy(arm: list[float], control: list[float], confidence: float) -> None:
    if not (_varies(arm) and _varies(control)):
        return
    got, expected = welch(arm, control, confidence), stats.ttest_ind(arm, control, equal_var=False)
    interval = expected.confidence_interval(confidence)
    assert got.test == "Welch"
    assert got.n == min(len(arm), len(control))
    assert got.df == pytest.approx(expected.df)
    assert got.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (got.ci_low, got.ci_high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)


def test_welch_of_constants_claims_no_certainty() -> None:
    got = welch([2.4, 2.4], [2.5, 2.5])
    assert (got.delta, got.p, got.test) == (pytest.approx(-0.1), None, None)
    assert got.note is not None


def test_seeds_pair_from_two_shared_ones_on() -> None:
    control = {1: 2.5, 2: 2.6, 3: 2.4}
    assert difference({1: 2.4, 2: 2.51, 9: 0.0}, control).test == "paired"
    assert difference({1: 2.4, 2: 2.51, 9: 0.0}, control).n == 2  # a lucky extra seed must not move the delta
    assert difference({1: 2.4, 8: 2.51, 9: 2.3}, control) == welch([2.4, 2.51, 2.3], [2.5, 2.6, 2.4])
    assert difference({1: 2.4}, control) == paired([2.4], [2.5])
    assert difference({9: 2.4}, control).delta == pytest.approx(-0.1)
    assert difference({}, control).delta is None


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


@settings(max_examples=15, deadline=None)  # it collects garbage on every call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_holm_example_of_four() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_does_not_count_what_was_not_tested() -> None:
    assert holm([None, 0.02, None]) == [None, 0.02, None]
    assert holm([]) == []


def test_nats_of_the_published_tokenizer() -> None:
    """The published sp1024 validation split: bpb / nats = 0.59226."""
    assert 1 / nats_per_token(1.0, 151_080_363, 62_021_632) == pytest.approx(0.59226, abs=5e-6)


def test_margin_asks_for_the_required_improvement_itself() -> None:
    """The t-test of scipy on the same numbers, against -0.005 instead of zero."""
    nats = [-0.0071, -0.0093, -0.0080, -0.0066]
    test = paired(nats, [0.0] * 4)
    assert test.delta is not None
    assert test.std_error is not None
    assert test.df is not None
    expected = stats.ttest_1samp(nats, -0.005, alternative="less")
    assert p_margin(test.delta, test.std_error, test.df) == pytest.approx(expected.pvalue)
    assert p_margin(-0.004, 0.0, 2) == 1
    assert p_margin(-0.006, 0.0, 2) == 0


@pytest.mark.parametrize("std", [0.0005, 0.002, 0.005, 0.02, 0.1])
@pytest.mark.parametrize("effect", [0.001, 0.005, 0.02])
@pytest.mark.parametrize("tests", [1, 6])
def test_seeds_required_is_the_least_with_the_power(std: float, effect: float, tests: int) -> None:
    def power(n: int) -> float:
        return float(TTestPower().power(max(effect, 0.005) / std, n, 0.01 / tests / 2, alternative="larger"))

    n = seeds_required(std, effect, tests)
    assert n is not None
    assert n >= 3
    assert power(n) >= 0.8 - 1e-6
    assert n == 3 or power(n - 1) < 0.8 + 1e-6


@pytest.mark.parametrize("ratio", [10.0**k for k in range(-6, 10)])
def test_seeds_required_has_an_answer_for_every_spread(ratio: float) -> None:
    n = seeds_required(0.005 / ratio)
    assert n == 3 if ratio >= 10 else n is None or n > 3


def test_no_spread_needs_no_more_than_the_rule() -> None:
    assert seeds_required(0.0) == 3

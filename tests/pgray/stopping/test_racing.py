"""Seed racing: how often the best arm is dropped, and what must not change a verdict."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import stats

from pgray.spec.stopping import Race
from pgray.stopping.racing import verdicts

RACE = Race()
Values = dict[str, dict[int, float]]


def table(y_AS: NDArray[np.float64]) -> Values:
    """values[arm, seed] -> arm name -> seed -> value."""
    return {f"arm{a}": {seed: float(v) for seed, v in enumerate(row)} for a, row in enumerate(y_AS)}


def dropped_reference(y_RAS: NDArray[np.float64], look: int, confidence: float) -> NDArray[np.bool_]:
    """[races, arms, seeds] -> [races, arms]: the module's formula for balanced values, by two-way analysis of variance."""
    _, num_arms, num_seeds = y_RAS.shape
    arm, seed = y_RAS.mean(2, keepdims=True), y_RAS.mean(1, keepdims=True)
    residual = y_RAS - arm - seed + y_RAS.mean((1, 2), keepdims=True)
    df = (num_arms - 1) * (num_seeds - 1)
    std = np.sqrt((residual**2).sum((1, 2)) / df)
    alpha = (1 - confidence) / (num_arms - 1) / (look * (look + 1))
    needed = stats.t.isf(alpha, df) * std * math.sqrt(2 / num_seeds)
    behind = arm[:, :, 0] - arm[:, :, 0].min(1, keepdims=True)
    return np.asarray(behind > needed[:, None])


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("num_arms", [2, 6])
def test_the_best_of_equal_arms_is_dropped_no_more_often_than_configured(num_arms: int, confidence: float) -> None:
    """Over a whole race of 5 seeds, looked at after each. All arms are equal, so any one of them is the best."""
    rng = np.random.default_rng(0)
    y_RAS = rng.normal(size=(20_000, num_arms, 5)) + rng.normal(scale=3, size=(20_000, 1, 5))
    lost = np.zeros((20_000, num_arms), dtype=bool)
    for look, num_seeds in enumerate(range(RACE.first, 6), start=1):
        lost |= dropped_reference(y_RAS[:, :, :num_seeds], look, confidence)
    assert 0 < lost.mean() <= 1 - confidence


@pytest.mark.parametrize(("num_arms", "num_seeds"), [(2, 2), (2, 4), (5, 3)])
def test_the_formula_on_balanced_values_is_that_of_the_analysis_of_variance(num_arms: int, num_seeds: int) -> None:
    rng = np.random.default_rng(1)
    effects = rng.normal(scale=4, size=(100, num_arms, 1))
    y_RAS = effects + rng.normal(size=(100, 1, num_seeds)) + rng.normal(scale=0.5, size=(100, num_arms, num_seeds))
    expected = dropped_reference(y_RAS, num_seeds - RACE.first + 1, RACE.confidence)
    found = np.array([[name in verdicts(RACE, table(y)) for name in table(y)] for y in y_RAS])
    assert (found == expected).all()
    assert expected.any()
    assert not expected.all()


tables = st.integers(2, 5).flatmap(
    lambda arms: st.integers(2, 4).flatmap(
        lambda seeds: st.lists(
            st.lists(st.integers(-50, 50).map(float), min_size=seeds, max_size=seeds), min_size=arms, max_size=arms
        ).map(np.array)
    )
)


@settings(deadline=None)
@given(tables, st.randoms())
def test_the_order_of_arms_and_seeds_does_not_matter(y_AS: NDArray[np.float64], random: object) -> None:
    values = table(y_AS)
    names = list(values)
    random.shuffle(names)  # type: ignore[attr-defined]
    shuffled = {name: dict(reversed(values[name].items())) for name in names}
    assert verdicts(RACE, shuffled) == verdicts(RACE, values)


@settings(deadline=None)
@given(tables, st.lists(st.integers(-1000, 1000), min_size=4, max_size=4))
def test_an_effect_of_a_seed_on_all_arms_does_not_matter(y_AS: NDArray[np.float64], shifts: list[int]) -> None:
    shifted = y_AS + np.array(shifts[: y_AS.shape[1]])
    assert verdicts(RACE, table(shifted)).keys() == verdicts(RACE, table(y_AS)).keys()


@settings(deadline=None)
@given(tables, st.floats(1, 20))
def test_more_noise_drops_fewer(y_AS: NDArray[np.float64], more: float) -> None:
    """The arms' means stay, what seeds do to them grows."""
    arm, seed = y_AS.mean(1, keepdims=True), y_AS.mean(0, keepdims=True)
    residual = y_AS - arm - seed + y_AS.mean()
    if np.abs(residual).max() > 1e-9:
        assert verdicts(RACE, table(arm + more * residual)).keys() <= verdicts(RACE, table(arm + residual)).keys()


CLEAR: Values = {
    "control": {1: 1.300, 2: 1.311, 3: 1.305},
    "best": {1: 1.200, 2: 1.212, 3: 1.204},
    "close": {1: 1.201, 2: 1.211, 3: 1.205},
    "bad": {1: 1.400, 2: 1.412, 3: 1.404},
}


def test_a_clear_loser_is_eliminated_and_a_contender_stays() -> None:
    found = verdicts(RACE, CLEAR, control="control")
    assert list(found) == ["bad"]
    assert "sliding_bpb 1.4053 is worse than best's by 0.2000 over 3 shared seeds" in found["bad"]
    assert "\n" not in found["bad"]
    assert set(verdicts(RACE, CLEAR)) == {"control", "bad"}, "only being the control protects the control"


def test_an_arm_with_fewer_seeds_is_compared_on_the_shared_ones() -> None:
    late = CLEAR | {"late": {1: 1.4}}
    assert "late" not in verdicts(RACE, late), "one seed is fewer than first"
    late["late"][2] = 1.412
    assert "over 2 shared seeds" in verdicts(RACE, late)["late"]


def test_no_verdict_without_noise_or_with_too_few_seeds() -> None:
    constant = {"a": {1: 1.0, 2: 2.0}, "b": {1: 3.0, 2: 4.0}}
    assert verdicts(RACE, constant) == {}, "the same difference on every seed says nothing about noise"
    assert verdicts(RACE, {"a": {1: 1.0}, "b": {1: 9.0}}) == {}
    assert verdicts(RACE, {"a": {1: 1.0, 2: 1.1}, "b": {3: 9.0, 4: 9.2}}) == {}, "no seed in common"
    assert verdicts(RACE, {"a": {}, "b": {}}) == {}
    assert verdicts(RACE, {}) == {}
    broken = CLEAR | {"bad": {1: 1.4, 2: math.nan, 3: math.inf}}
    assert "bad" not in verdicts(RACE, broken)


def test_bad_input_is_refused() -> None:
    for wrong in ({"first": 1}, {"confidence": 1.0}, {"metric": "steps"}, {"metric": "val_bpb"}, {"seeds": 3}):
        with pytest.raises(ValidationError):
            Race.model_validate(wrong)

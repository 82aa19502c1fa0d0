"""Effects against statsmodels' formulas, against means by hand, and refusals where arms are no full cross."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.formula.api import ols

import results
from results.schema import frame
from tests.results.synthetic import Run
from trainer.errors import InputError
from trainer.records.files import write_json

ARMS = {f"{a}-{b}": {"qat": a, "average": b} for a, b in itertools.product(["off", "on"], ["none", "ema", "swa"])}
FACTORS = {name: {arm: levels[name] for arm, levels in ARMS.items()} for name in ("qat", "average")}


def trials(values: np.ndarray[Any, Any], first: int = 0) -> pd.DataFrame:
    """values: (seeds, arms)."""
    return frame(
        {"arm": arm, "seed": first + seed, "status": "finished", "sliding_bpb": float(values[seed, i])}
        for i, arm in enumerate(ARMS)
        for seed in range(len(values))
    )


def noisy(seeds: int = 3, seed: int = 1) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.normal(2.4, 0.05, (seeds, 1)) + rng.normal(0, 0.01, (1, 6)) + rng.normal(0, 0.004, (seeds, 6))


def effects(frame_of_trials: pd.DataFrame, **options: Any) -> pd.DataFrame:
    table = results.effects(frame_of_trials, **({"factors": FACTORS} | options))
    return table.set_index(["term", "levels"])


def test_columns_terms_and_levels() -> None:
    table = results.effects(trials(noisy()), FACTORS)
    assert list(table.columns)[:8] == ["term", "levels", "estimate", "ci_low", "ci_high", "p", "p_holm", "n"]
    assert list(zip(table["term"], table["levels"], strict=True)) == [
        ("qat", "on against off"),
        ("average", "ema against none"),
        ("average", "swa against none"),
        ("qat × average", "on against off, ema against none"),
        ("qat × average", "on against off, swa against none"),
    ]
    assert table["n"].tolist() == 5 * [18]


def test_equals_an_ordinary_least_squares_formula() -> None:
    """Two factors of two levels, coded ±1/2: the coefficients are the effects, to a factor for the interaction."""
    rng = np.random.default_rng(3)
    arms = {f"{a}{b}": (a, b) for a in (0, 1) for b in (0, 1)}
    rows = [
        {"arm": arm, "seed": seed, "y": rng.normal(2.4 + 0.05 * seed - 0.01 * a + 0.02 * a * b, 0.004), "a": a, "b": b}
        for arm, (a, b) in arms.items()
        for seed in range(4)
    ]
    data = pd.DataFrame(rows)
    fit = ols("y ~ C(seed) + I(a - 0.5) * I(b - 0.5)", data).fit()
    factors = {"a": {arm: a for arm, (a, _) in arms.items()}, "b": {arm: b for arm, (_, b) in arms.items()}}
    table = results.effects(data, factors, metric="y").set_index("term")
    names = {"a": "I(a - 0.5)", "b": "I(b - 0.5)", "a × b": "I(a - 0.5):I(b - 0.5)"}
    for term, name in names.items():
        low, high = fit.conf_int().loc[name]
        got = table.loc[term]
        assert got["estimate"] == pytest.approx(fit.params[name])
        assert (got["ci_low"], got["ci_high"]) == pytest.approx((low, high))
        assert got["p"] == pytest.approx(fit.pvalues[name])


def test_two_arms_to_a_factor_equal_the_paired_test_in_the_smallest_cross() -> None:
    """An interaction in a 2 x 2 cross is the difference of differences by hand."""
    values = noisy()
    table = effects(trials(values))
    mean = dict(zip(ARMS, values.mean(axis=0), strict=True))
    got = table.loc["qat × average", "on against off, swa against none"]
    by_hand = (mean["on-swa"] - mean["off-swa"]) - (mean["on-none"] - mean["off-none"])
    assert got["estimate"] == pytest.approx(by_hand)
    main = table.loc["qat", "on against off"]
    on, off = ([mean[arm] for arm in ARMS if arm.startswith(f"{level}-")] for level in ("on", "off"))
    assert main["estimate"] == pytest.approx(np.mean(on) - np.mean(off))


def test_seeds_are_blocks() -> None:
    """Seeds that differ by 0.05 hide nothing when every arm shifts alike."""
    values = noisy(4)
    shifted = values + np.array([0.0, 0.5, -0.5, 0.25])[:, None]
    pd.testing.assert_frame_equal(effects(trials(values)), effects(trials(shifted)), check_exact=False, rtol=1e-6)


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 4), st.integers(0, 99), st.floats(-1, 1), st.randoms(use_true_random=False))
def test_order_and_a_constant_change_nothing(seeds: int, seed: int, constant: float, random: Any) -> None:
    values = noisy(seeds, seed)
    order = list(range(values.size))
    random.shuffle(order)
    moved = trials(values + constant).iloc[order]
    pd.testing.assert_frame_equal(
        effects(trials(values), control="off-none"), effects(moved, control="off-none").loc[effects(trials(values)).index],
        check_exact=False, rtol=1e-6,
    )  # fmt: skip


def test_the_controls_levels_are_what_others_are_compared_with() -> None:
    values = noisy()
    one, other = effects(trials(values)), effects(trials(values), control="on-none")
    assert other.loc[("qat", "off against on"), "estimate"] == pytest.approx(
        -one.loc[("qat", "on against off"), "estimate"]
    )


def test_failed_rows_are_noted_and_change_nothing() -> None:
    values = noisy()
    failed = pd.concat([trials(values), frame([{"arm": "on-ema", "seed": 9, "status": "failed", "sliding_bpb": 9.0}])])
    table = effects(failed)
    assert table["estimate"].tolist() == effects(trials(values))["estimate"].tolist()
    assert set(table["reason"]) == {"1 of 19 trials have no result"}


def test_a_lost_seed_is_no_reason_to_lose_the_pairing() -> None:
    """Unbalanced: least squares by statsmodels' formula on what is left."""
    left = trials(noisy(4)).drop(index=5)
    data = left.assign(cell=left["arm"].astype(str), y=left["sliding_bpb"].astype(float), s=left["seed"].astype(int))
    fit = ols("y ~ 0 + C(cell) + C(s)", data[["cell", "y", "s"]]).fit()
    test = fit.t_test("C(cell)[on-ema] - C(cell)[off-ema] - C(cell)[on-none] + C(cell)[off-none] = 0")
    got = effects(left).loc["qat × average", "on against off, ema against none"]
    assert got["estimate"] == pytest.approx(test.effect.item())
    assert got["p"] == pytest.approx(test.pvalue.item())
    assert got["n"] == 23


def test_one_seed_has_estimates_and_no_intervals() -> None:
    table = effects(trials(noisy(1)))
    assert table["estimate"].notna().all()
    assert table[["ci_low", "p", "p_holm"]].isna().all(axis=None)
    assert table["reason"].str.contains("no interval").all()


def test_seeds_that_do_not_pair_are_not_blocks() -> None:
    values = noisy(3)
    apart = frame(
        {"arm": arm, "seed": 10 * i + seed, "status": "finished", "sliding_bpb": float(values[seed, i])}
        for i, arm in enumerate(ARMS)
        for seed in range(3)
    )
    table = effects(apart)
    assert table["reason"].str.contains("seeds do not pair").all()
    assert table["p"].notna().all()


def test_an_arm_without_a_result_leaves_no_effects() -> None:
    partial = trials(noisy())
    partial.loc[partial["arm"] == "on-swa", "status"] = "failed"
    table = effects(partial)
    assert table["estimate"].isna().all()
    assert table["reason"].str.contains("no result of on-swa").all()


def test_constant_differences_claim_no_certainty() -> None:
    values = np.array([[2.4], [2.5], [2.6]]) + np.linspace(0, 0.05, 6)
    table = effects(trials(values))
    assert table["p"].isna().all()
    assert table["reason"].str.contains("is the seed used").all()


def test_an_incomplete_cross_is_refused() -> None:
    whole = trials(noisy())
    with pytest.raises(InputError, match="no arm has qat = on, average = swa"):
        effects(whole[whole["arm"] != "on-swa"])
    with pytest.raises(InputError, match="give two or more"):
        effects(whole, factors={"qat": FACTORS["qat"]})
    with pytest.raises(InputError, match="off-none and off-ema have the same levels"):
        effects(whole, factors={"qat": FACTORS["qat"], "average": {a: "swa" in a for a in ARMS}})
    with pytest.raises(InputError, match="the same in every arm"):
        effects(whole, factors=FACTORS | {"bits": dict.fromkeys(ARMS, 4)})
    with pytest.raises(InputError, match="has no level"):
        effects(whole, factors=FACTORS | {"bits": {"off-none": 4}})
    mixed = whole.assign(scored_tokens=[7] + [8] * 17)
    with pytest.raises(results.NotComparableError):
        effects(mixed)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """qat x average as a trainer would leave it: `average.every` follows from the kind, `bits` is the same everywhere."""
    run = Run(tmp_path / "cross", "name: cross\ncontrol: off-none\n")
    for i, (arm, levels) in enumerate(ARMS.items()):
        for seed in (1, 2):
            trial = run.finish(arm, seed, 2.5 + 0.01 * i + 0.001 * seed * (i % 2), sliding_bpb=2.4 + 0.01 * i)
            config = {
                "seed": seed,
                "qat": {"enabled": levels["qat"] == "on"},
                "average": {"kind": levels["average"], "every": 2 if levels["average"] == "swa" else 50},
                "quant": {"bits": {"mlp": 4}},
            }
            write_json(run.layout.trial(trial).config, config)
    return run


def test_factors_are_found_in_the_configs(run: Run) -> None:
    table = results.effects(results.load(run.layout.root), metric="post_quant_bpb")
    assert table["term"].drop_duplicates().tolist() == [
        "qat.enabled", "average.kind (+1 keys)", "qat.enabled × average.kind (+1 keys)",
    ]  # fmt: skip
    assert table["levels"].tolist()[:2] == ["true against false", "ema against none"]
    named = results.effects(results.load(run.layout.root), ["qat.enabled", "average.kind"], metric="post_quant_bpb")
    assert named["estimate"].tolist() == table["estimate"].tolist()
    assert table["estimate_nats"].notna().all()


def test_a_section_of_the_config_is_a_factor_too(run: Run) -> None:
    table = results.effects(results.load(run.layout.root), ["qat", "average"], metric="post_quant_bpb")
    assert table["levels"].tolist()[0] == f"{json.dumps({'enabled': True})} against {json.dumps({'enabled': False})}"
    with pytest.raises(InputError, match="no such config key"):
        results.effects(results.load(run.layout.root), ["qat", "averaging"])


def test_an_arm_without_a_config_is_refused(run: Run) -> None:
    run.entry("extra", 1)
    with pytest.raises(InputError, match=r"extra: no config\.json of this arm"):
        results.effects(results.load(run.layout.root))

"""The ablation: numbers of comparable rows, refusal of others, and a note on every row that is left out."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import results
from results.schema import frame as typed
from tests.results.synthetic import Run
from trainer.errors import InputError

SEEDS = (42, 1337, 7)
CONTROL = dict(zip(SEEDS, (2.5000, 2.5200, 2.4900), strict=True))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "bits")
    for seed, bpb in CONTROL.items():
        run.finish("int8", seed, bpb)
    return run


def table(run: Run, **options: Any) -> pd.DataFrame:
    return results.ablation(results.load(run.layout.root), metric="post_quant_bpb", **options).set_index("arm")


def add(run: Run, arm: str, deltas: tuple[float, ...], **changes: Any) -> None:
    for seed, delta in zip(SEEDS, deltas, strict=False):
        run.finish(arm, seed, CONTROL[seed] + delta, **changes)


def test_columns_and_numbers(run: Run) -> None:
    deltas = (-0.031, -0.030, -0.0312)
    add(run, "int6", deltas)
    frame = results.ablation(results.load(run.layout.root), metric="post_quant_bpb")
    promised = ["arm", "n", "mean", "std", "delta", "ci_low", "ci_high", "p", "p_holm", "verdict"]
    assert list(frame.columns)[: len(promised)] == promised
    line = frame.set_index("arm").loc["int6"]
    values = [CONTROL[s] + d for s, d in zip(SEEDS, deltas, strict=True)]
    assert line["n"] == 3
    assert line["mean"] == pytest.approx(sum(values) / 3)
    assert line["std"] == pytest.approx(pd.Series(values).std())
    assert line["delta"] == pytest.approx(sum(deltas) / 3)
    reference = stats.ttest_rel(values, list(CONTROL.values()))
    assert line["p"] == pytest.approx(reference.pvalue)
    assert line["p_holm"] == pytest.approx(reference.pvalue)
    assert line["ci_low"] == pytest.approx(reference.confidence_interval(0.95).low)
    assert line["verdict"] == "WIN"
    assert line["delta_nats"] == pytest.approx(line["delta"] * 0.6931471805599453 * 2.4)


def test_control_comes_first_and_has_no_delta(run: Run) -> None:
    first = Run(run.layout.root.parent / "other", "name: x\ncontrol: int8\n")
    first.finish("int6", 42)
    first.finish("int8", 42)
    frame = results.ablation(results.load(first.layout.root), metric="post_quant_bpb")
    assert frame["arm"].tolist() == ["int8", "int6"]
    assert frame["verdict"].tolist()[0] == "CONTROL"
    assert frame["delta"].isna().tolist() == [True, False]


def test_control_by_argument_then_sweep_then_first_arm(run: Run) -> None:
    add(run, "int6", (0.1, 0.1, 0.11))
    trials = results.load(run.layout.root)
    assert results.ablation(trials, metric="post_quant_bpb").iloc[0]["arm"] == "int8"
    swapped = results.ablation(trials, control="int6", metric="post_quant_bpb")
    assert swapped.iloc[0]["arm"] == "int6"
    assert swapped.iloc[1]["delta"] < 0
    trials.attrs = {}
    assert results.ablation(trials[::-1], metric="post_quant_bpb").iloc[0]["arm"] == "int6"
    with pytest.raises(InputError, match="not among the arms: int8, int6"):
        results.ablation(trials, control="int7", metric="post_quant_bpb")


def test_one_seed_has_no_interval(run: Run) -> None:
    add(run, "int6", (-0.03,))
    line = table(run).loc["int6"]
    assert line["n"] == 1
    assert line[["std", "ci_low", "ci_high", "p", "p_holm"]].isna().all()
    assert line["verdict"] == "TOO FEW SEEDS"


def test_delta_is_over_shared_seeds_only(run: Run) -> None:
    """A lucky extra seed moves the mean; it must not move the delta."""
    add(run, "int6", (-0.031, -0.030, -0.0312))
    run.finish("int6", 99, 1.0)
    line = table(run).loc["int6"]
    assert (line["n"], line["n_pairs"]) == (4, 3)
    assert line["delta"] == pytest.approx((-0.031 - 0.030 - 0.0312) / 3)
    assert "1 seed without a partner" in line["reason"]


def test_no_shared_seed_and_a_single_one(run: Run) -> None:
    run.finish("int6", 99, 1.0)
    line = table(run).loc["int6"]
    assert (line["n_pairs"], line["verdict"], line["seeds_needed"]) == (1, "TOO FEW SEEDS", 2)
    assert line["delta"] == pytest.approx(1.0 - sum(CONTROL.values()) / 3)
    assert line[["test", "ci_low", "p"]].isna().all()
    assert "no seed in common" in line["reason"]


def test_seeds_that_do_not_pair_are_compared_by_welch(run: Run) -> None:
    values = (2.4601, 2.4902, 2.4503)
    for seed, bpb in zip((42, 98, 99), values, strict=True):  # one shared seed makes no pairs
        run.finish("int6", seed, bpb)
    line = table(run).loc["int6"]
    reference = stats.ttest_ind(values, list(CONTROL.values()), equal_var=False)
    assert (line["test"], line["n_pairs"]) == ("Welch", 3)
    assert line["p"] == pytest.approx(reference.pvalue)
    assert line["delta"] == pytest.approx(sum(values) / 3 - sum(CONTROL.values()) / 3)
    assert line["ci_high"] == pytest.approx(reference.confidence_interval(0.95).high)
    assert "Welch" in line["reason"]


def test_failed_and_pending_are_counted(run: Run) -> None:
    add(run, "int6", (-0.031,))
    run.entry("int6", 1337, "failed", failure_kind="diverged", reason="loss is nan")
    run.entry("int6", 7, "queued")
    run.entry("int4", 42, "killed", reason="rule")
    frame = table(run)
    assert frame.loc["int6", ["n", "n_failed", "n_pending"]].tolist() == [1, 1, 1]
    assert frame.loc["int6", "reason"].startswith("1 failed; 1 queued")
    assert "1 killed" in frame.loc["int4", "reason"]
    assert frame.loc["int4", "n"] == 0
    assert pd.isna(frame.loc["int4", "mean"])


def test_over_the_cap_is_infeasible_whatever_its_number(run: Run) -> None:
    add(run, "int6", (-0.031, -0.030), model_bytes=9_000_000)
    run.finish("int6", 7, CONTROL[7] - 0.0312, model_bytes=16_000_000)
    line = table(run).loc["int6"]
    assert line["verdict"] == "INFEASIBLE"
    assert line["n_over_cap"] == 1
    assert "1 of 3 seeds over the cap" in line["reason"]


def test_a_missing_metric_is_counted(run: Run) -> None:
    add(run, "int6", (-0.031, -0.030, -0.0312), sliding_bpb=None)
    frame = results.ablation(results.load(run.layout.root), metric="sliding_bpb").set_index("arm")
    assert frame.loc["int6", ["n", "n_missing"]].tolist() == [0, 3]
    assert "3 finished without sliding_bpb" in frame.loc["int6", "reason"]


@pytest.mark.parametrize(
    "changes",
    [
        {"scored_tokens": 99_999},
        {"scored_bytes": 239_999},
        {"tokenizer_sha": "other"},
        {"data_sha": "other"},
        {"eval_seq_len": 512},
    ],
    ids=lambda c: next(iter(c)),
)
def test_another_evaluation_is_refused(run: Run, changes: dict[str, Any]) -> None:
    add(run, "good", (-0.031, -0.030, -0.0312))
    add(run, "int6", (-0.031, -0.030, -0.0312), **changes)
    with pytest.raises(results.NotComparableError, match=rf"int6 seed 42 has {next(iter(changes))}") as caught:
        table(run)
    assert isinstance(caught.value, ValueError)
    marked = table(run, on_mismatch="mark")
    assert marked.loc["int6", "verdict"] == "NOT COMPARABLE"
    assert pd.isna(marked.loc["int6", "delta"])
    assert next(iter(changes)) in marked.loc["int6", "reason"]
    assert marked.loc["good", "verdict"] == "WIN"
    assert results.ablation(results.load(run.layout.root), metric="artifact_bytes")["n"].tolist() == [3, 3, 3]


def test_another_stride_is_refused_for_the_sliding_bpb_only(run: Run) -> None:
    other = Run(run.layout.root.parent / "strides")
    for arm, stride in (("int8", 64), ("wide", 128)):
        for seed in SEEDS:
            other.finish(arm, seed, CONTROL[seed], sliding_bpb=CONTROL[seed] - 0.05, eval_stride=stride)
    trials = results.load(other.layout.root)
    assert results.ablation(trials, metric="post_quant_bpb")["n"].tolist() == [3, 3]
    with pytest.raises(results.NotComparableError, match="eval_stride 128"):
        results.ablation(trials, metric="sliding_bpb")


def test_a_control_that_mixes_evaluations_compares_with_nothing(run: Run) -> None:
    run.finish("int8", 99, 2.4, scored_tokens=5)
    add(run, "int6", (-0.031, -0.030, -0.0312))
    with pytest.raises(results.NotComparableError):
        table(run)
    assert table(run, on_mismatch="mark")["delta"].isna().all()


def test_superseded_trials_are_not_in_the_ablation(run: Run) -> None:
    add(run, "int6", (-0.031, -0.030, -0.0312))
    run.entry("int6", 42, "queued", trial_id="int6-s42-new")
    line = table(run).loc["int6"]
    assert (line["n"], line["n_pending"]) == (2, 1)


def test_two_sweeps_with_the_same_arm_are_refused(run: Run) -> None:
    other = Run(run.layout.root.parent / "again")
    other.finish("int8", 42)
    with pytest.raises(results.NotComparableError, match="occurs twice"):
        results.ablation(results.load([run.layout.root, other.layout.root]), metric="post_quant_bpb")


def test_holm_runs_over_the_arms(run: Run) -> None:
    add(run, "a", (-0.031, -0.030, -0.0312))
    add(run, "b", (-0.02, 0.01, 0.005))
    frame = table(run)
    assert frame.loc["a", "p_holm"] == pytest.approx(2 * frame.loc["a", "p"])
    assert frame.loc["b", "p_holm"] == pytest.approx(frame.loc["b", "p"])


def test_an_arm_identical_to_the_control_is_noted(run: Run) -> None:
    add(run, "dead", (0.0, 0.0, 0.0))
    line = table(run).loc["dead"]
    assert (line["delta"], line["p"], line["verdict"]) == (0.0, 1.0, "NOISE")
    assert "identical to the control" in line["reason"]


def test_a_frame_made_by_hand() -> None:
    """Only arm, seed and the metric: enough for numbers, not for a verdict in nats."""
    trials = pd.DataFrame(
        {"arm": list("aaabbb"), "seed": [1, 2, 3] * 2, "my_bpb": [2.0, 2.1, 2.2, 1.0, 1.11, 1.2], "name": "x"}
    )
    frame = results.ablation(trials, metric="my_bpb")
    assert frame["n"].tolist() == [3, 3]
    assert frame["verdict"].isna().tolist() == [False, True]
    with pytest.raises(InputError, match="not a numeric column"):
        results.ablation(trials, metric="name")
    with pytest.raises(InputError, match="not a numeric column"):
        results.ablation(trials, metric="sliding_bpb")
    trials.loc[0, "my_bpb"] = float("nan")
    assert results.ablation(trials, metric="my_bpb")["n_missing"].tolist() == [1, 0]


CELL = st.tuples(st.integers(1, 4), st.floats(1, 3), st.sampled_from(["finished", "finished", "failed"]))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.lists(CELL, min_size=1, unique_by=lambda c: c[0]), min_size=1))
def test_ablation_equals_a_merge_on_seeds(cells: dict[str, list[tuple[int, float, str]]]) -> None:
    """The same numbers by another route: pandas' own merge and groupby; and the order of the rows does not matter."""
    rows = [
        {"arm": arm, "seed": seed, "status": status, "sliding_bpb": bpb if status == "finished" else None}
        for arm, trials in cells.items()
        for seed, bpb, status in trials
    ]
    control = rows[0]["arm"]
    got = results.ablation(typed(rows), control=str(control)).set_index("arm")
    turned = results.ablation(typed(rows[::-1]), control=str(control)).set_index("arm")
    pd.testing.assert_frame_equal(got, turned.loc[got.index], check_exact=False)
    done = pd.DataFrame([row for row in rows if row["status"] == "finished"], columns=["arm", "seed", "sliding_bpb"])
    for arm in cells:
        mine = done[done["arm"] == arm]
        assert got.loc[arm, "n"] == len(mine)
        assert got.loc[arm, "n_failed"] == sum(status == "failed" for _, _, status in cells[arm])
        if len(mine) > 1:
            assert got.loc[arm, "std"] == pytest.approx(mine["sliding_bpb"].std(), abs=1e-12)
        theirs = done[done["arm"] == control]
        pairs = mine.merge(theirs, on="seed")
        if arm != control and (len(pairs) > 1 or (len(pairs) and min(len(mine), len(theirs)) == 1)):
            delta = (pairs["sliding_bpb_x"] - pairs["sliding_bpb_y"]).mean()
            assert got.loc[arm, "n_pairs"] == len(pairs)
            assert got.loc[arm, "delta"] == pytest.approx(delta, abs=1e-12)
        elif arm != control and len(mine) and len(theirs):
            delta = mine["sliding_bpb"].mean() - theirs["sliding_bpb"].mean()
            assert got.loc[arm, "n_pairs"] == min(len(mine), len(theirs))
            assert got.loc[arm, "delta"] == pytest.approx(delta, abs=1e-12)

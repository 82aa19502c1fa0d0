"""What must hold for every table: order, a constant, the choice of control, failed rows, nulls, seeds still needed."""

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import results
from results.analysis.statistics import seeds_required
from results.schema import frame

EVALUATION = {
    "tokenizer_sha": "t",
    "data_sha": "d",
    "scored_tokens": 100_000,
    "scored_bytes": 240_000,
    "eval_seq_len": 256,
    "eval_stride": 64,
    "artifact_bytes": 15_000_000,
}
UNKNOWN = dict.fromkeys(EVALUATION)
NATS_PER_BPB = 0.6931471805599453 * 2.4
NUMBERS = ("n", "mean", "std", "delta", "ci_low", "ci_high", "p", "p_holm", "delta_nats", "p_margin", "seeds_needed")


def trials(cells: dict[str, list[float]], **changes: Any) -> pd.DataFrame:
    return frame(rows(cells, **changes))


def rows(cells: dict[str, list[float]], first_seed: int = 0, **changes: Any) -> list[dict[str, Any]]:
    shared = EVALUATION | {"status": "finished"} | changes
    return [
        {"arm": arm, "seed": first_seed + i, "sliding_bpb": bpb} | shared
        for arm, values in cells.items()
        for i, bpb in enumerate(values)
    ]


def table(frame_of_trials: pd.DataFrame, control: str = "a", **options: Any) -> pd.DataFrame:
    return results.ablation(frame_of_trials, control=control, **options).set_index("arm")


VALUES = st.lists(st.integers(1_000_000, 3_000_000).map(lambda micro: micro / 1e6), min_size=1, max_size=5)
CELLS = st.fixed_dictionaries({"a": VALUES, "b": VALUES}, optional={"c": VALUES})


@settings(max_examples=12, deadline=None)
@given(CELLS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(cells: dict[str, list[float]], random: Any) -> None:
    ordered, shuffled = rows(cells), rows(cells)
    random.shuffle(shuffled)
    got, again = table(frame(ordered)), table(frame(shuffled))
    pd.testing.assert_frame_equal(again.loc[got.index, list(NUMBERS)], got[list(NUMBERS)], rtol=1e-9)
    assert again.loc[got.index, "verdict"].tolist() == got["verdict"].tolist()


@settings(max_examples=12, deadline=None)
@given(CELLS, st.sampled_from([-0.5, 0.125, 2.0]))
def test_a_constant_added_to_every_arm_changes_no_difference(cells: dict[str, list[float]], constant: float) -> None:
    moved = {arm: [value + constant for value in values] for arm, values in cells.items()}
    got, again = table(trials(cells)), table(trials(moved))
    numbers = [name for name in NUMBERS if name not in ("mean",)]
    pd.testing.assert_frame_equal(again[numbers], got[numbers], rtol=1e-6, atol=1e-9)
    assert (again["mean"] - got["mean"] - constant).abs().max() < 1e-9


@settings(max_examples=12, deadline=None)
@given(VALUES, VALUES)
def test_swapping_the_control_flips_the_sign(a: list[float], b: list[float]) -> None:
    frame_of_trials = trials({"a": a, "b": b})
    one, other = table(frame_of_trials, "a").loc["b"], table(frame_of_trials, "b").loc["a"]
    for name, partner in (
        ("delta", "delta"),
        ("ci_low", "ci_high"),
        ("ci_high", "ci_low"),
        ("delta_nats", "delta_nats"),
    ):
        assert pd.isna(one[name]) == pd.isna(other[partner])
        assert pd.isna(one[name]) or one[name] == pytest.approx(-other[partner], abs=1e-12)
    assert pd.isna(one["p"]) or one["p"] == pytest.approx(other["p"])
    mirror = {"WIN": "LOSS", "LOSS": "WIN"}
    assert one["verdict"] == mirror.get(other["verdict"], other["verdict"])


@settings(max_examples=12, deadline=None)
@given(CELLS, st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["failed", "killed", "lost", "queued"]))))
def test_unfinished_rows_are_counted_and_change_no_number(
    cells: dict[str, list[float]], others: list[tuple[str, str]]
) -> None:
    extra = [
        {"arm": arm, "seed": 100 + i, "status": status, "sliding_bpb": 0.0}  # a number that a failure left behind
        for i, (arm, status) in enumerate(others)
        if arm in cells
    ]
    got, again = table(trials(cells)), table(frame(rows(cells) + extra))
    pd.testing.assert_frame_equal(again[list(NUMBERS)], got[list(NUMBERS)])
    counted = again["n_failed"] + again["n_pending"]
    assert counted.sum() == len(extra)
    assert all((again["reason"].fillna("").str.len() > 0) | (counted == 0))


CONTROL = [2.500, 2.520, 2.490]
BETTER = {"a": CONTROL, "b": [2.4691, 2.4902, 2.4603]}


def test_rows_without_a_recorded_evaluation_compare_among_themselves_and_say_so() -> None:
    line = table(trials(BETTER, **UNKNOWN)).loc["b"]
    assert "evaluation not recorded (tokenizer_sha, data_sha" in line["reason"]
    assert "comparable only if it was the same" in line["reason"]
    assert "cap not checked on 3 seeds" in line["reason"]
    assert "cannot be converted into nats" in line["reason"]
    assert pd.isna(line["verdict"])
    assert line["p"] < 0.01


def test_rows_without_a_recorded_evaluation_do_not_compare_with_others() -> None:
    mixed = frame(rows({"a": CONTROL}) + rows({"b": BETTER["b"]}, **UNKNOWN))
    with pytest.raises(results.NotComparableError, match="b seed 0 has tokenizer_sha none, a seed 0 has t"):
        table(mixed)
    line = table(mixed, on_mismatch="mark").loc["b"]
    assert line["verdict"] == "NOT COMPARABLE"
    assert pd.isna(line["delta"])


def test_a_reason_lets_unrecorded_evaluations_through_and_is_shown() -> None:
    cells = rows({"a": CONTROL}) + rows({"b": BETTER["b"]}, **UNKNOWN)
    line = table(frame(cells), assume_same="both are the published sp1024 split").loc["b"]
    assert line["verdict"] == "WIN"
    assert "assumed the same: both are the published sp1024 split" in line["reason"]
    other = frame(cells + rows({"c": BETTER["b"]}, eval_stride=32))
    with pytest.raises(results.NotComparableError, match="c seed 0 has eval_stride 32"):
        table(other, assume_same="no reason bends what was recorded")


def test_the_rule_is_in_nats_of_the_tokenizer_at_hand() -> None:
    """0.00296 bpb is 0.005 nats at sp1024's published totals; with more bytes to a token less bpb is enough."""
    sp1024 = {"scored_bytes": 151_080_363, "scored_tokens": 62_021_632}
    for bpb, expected in ((-0.00290, "SMALL"), (-0.00300, "WIN")):
        cells = {"a": CONTROL, "b": [c + bpb + i * 1e-6 for i, c in enumerate(CONTROL)]}
        assert table(trials(cells, **sp1024)).loc["b", "verdict"] == expected
    longer = {"scored_bytes": 151_080_363, "scored_tokens": 40_000_000}
    cells = {"a": CONTROL, "b": [c - 0.0020 + i * 1e-6 for i, c in enumerate(CONTROL)]}
    assert table(trials(cells, **longer)).loc["b", "verdict"] == "WIN"


def test_a_log_without_totals_says_nats_by_its_loss() -> None:
    known = {"scored_bytes": None, "scored_tokens": None, "post_quant_bpb": 1.2, "val_loss_nats": 1.2 * NATS_PER_BPB}
    line = table(trials(BETTER, **known)).loc["b"]
    assert line["delta_nats"] == pytest.approx(line["delta"] * NATS_PER_BPB)
    assert line["verdict"] == "WIN"


@pytest.mark.parametrize("column", ["hardware", "world_size", "torch_version", "git_sha", "code_sha"])
def test_other_circumstances_are_compared_with_a_note(column: str) -> None:
    one, other = (8, 4) if column == "world_size" else ("x", "y")
    mixed = frame(rows({"a": CONTROL}, **{column: one}) + rows({"b": BETTER["b"]}, **{column: other}))
    line = table(mixed).loc["b"]
    assert line["verdict"] == "WIN"
    assert line["reason"] == f"{column} {other}, control {one}"


def test_another_commit_of_the_same_code_is_no_circumstance() -> None:
    mixed = frame(rows({"a": CONTROL}, git_sha="x", code_sha="c") + rows({"b": BETTER["b"]}, git_sha="y", code_sha="c"))
    assert pd.isna(table(mixed).loc["b", "reason"])


def test_seeds_needed_come_from_the_observed_spread() -> None:
    noisy = {"a": [2.5] * 4, "b": [2.5 - 0.01, 2.5 + 0.012, 2.5 - 0.002, 2.5 + 0.003]}
    line = table(trials(noisy)).loc["b"]
    std = pd.Series([-0.01, 0.012, -0.002, 0.003]).std() * NATS_PER_BPB
    required = seeds_required(std, abs(line["delta_nats"]))
    assert required is not None
    assert (line["verdict"], line["seeds_needed"]) == ("INCONCLUSIVE", required - 4)
    settled = table(trials(BETTER)).loc["b"]
    assert (settled["verdict"], settled["seeds_needed"]) == ("WIN", 0)
    too_big = table(frame(rows({"a": CONTROL}) + rows({"b": BETTER["b"]}, artifact_bytes=16_000_001))).loc["b"]
    assert (too_big["verdict"], pd.isna(too_big["seeds_needed"])) == ("INFEASIBLE", True)
    one = table(trials({"a": CONTROL, "b": [2.4]})).loc["b"]
    assert (one["verdict"], one["seeds_needed"]) == ("TOO FEW SEEDS", 2)


def test_more_arms_need_more_seeds() -> None:
    noisy = {"a": [2.5] * 4, "b": [2.49, 2.512, 2.498, 2.503]}
    more = noisy | {name: [2.5 + 0.001 * i * x for x in (1, -1, 2, 1)] for i, name in enumerate("cdef", 1)}
    few, many = (table(trials(cells)).loc["b", "seeds_needed"] for cells in (noisy, more))
    assert few < many


def test_no_effect_seen_with_enough_seeds_is_noise_that_needs_none() -> None:
    quiet = {
        "a": CONTROL * 2,
        "b": [c + d for c, d in zip(CONTROL * 2, (1e-5, -1e-5, 2e-5, -2e-5, 1e-5, 0), strict=True)],
    }
    line = table(trials(quiet)).loc["b"]
    assert (line["verdict"], line["seeds_needed"]) == ("NOISE", 0)

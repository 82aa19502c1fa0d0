"""The parts of a difference: they add up, whatever the numbers; steps are told from quality where a curve says how."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import results
from results.schema import frame
from tests.results.synthetic import Run
from trainer.records.events import EventLog

TOP = ["float", "quant_gap", "sliding"]
BELOW = ["equal_steps", "fewer_steps", "averaging"]
BPB = st.integers(1_000_000, 3_000_000).map(lambda micro: micro / 1e6)
TRIAL = st.fixed_dictionaries(
    {
        "post_quant_bpb": BPB,
        "float_bpb": BPB,
        "raw_bpb": BPB,
        "sliding_bpb": BPB,
        "steps": st.sampled_from([200, 250, 300]),
    }
)
SWEEP = st.dictionaries(
    st.sampled_from("abc"), st.dictionaries(st.sampled_from([1, 2, 7]), TRIAL, min_size=1), min_size=2
)


def decomposed(trials: pd.DataFrame, metric: str = "post_quant_bpb", **options: Any) -> pd.DataFrame:
    table = results.decompose(trials, **options)
    return table[table["metric"] == metric].set_index("arm")


def straight_curves(trials: pd.DataFrame, slope: float = -0.001) -> pd.DataFrame:
    """Validations every 50 steps on a straight line that ends in each trial's raw_bpb."""
    return pd.DataFrame(
        {"trial_id": row["trial_id"], "step": step, "val_bpb": row["raw_bpb"] + slope * (step - row["steps"]), "lr_scale": 1.0}
        for row in trials.to_dict("records")
        for step in range(50, int(row["steps"]), 50)
    )  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(SWEEP, st.booleans())
def test_the_parts_add_up_to_the_difference(sweep: dict[str, dict[int, dict[str, float]]], has_curves: bool) -> None:
    trials = frame(
        {"arm": arm, "seed": seed, "trial_id": f"{arm}-{seed}", "status": "finished", **numbers}
        for arm, seeds in sweep.items()
        for seed, numbers in seeds.items()
    )
    control = next(iter(sweep))
    curves = straight_curves(trials) if has_curves else None
    for metric in ("post_quant_bpb", "sliding_bpb"):
        table = decomposed(trials, metric, control=control, curves=curves)
        deltas = results.ablation(trials, control, metric).set_index("arm")["delta"]
        for arm, line in table.iterrows():
            assert line["delta"] == pytest.approx(deltas[arm], abs=1e-12)
            assert line[TOP].sum() == pytest.approx(line["delta"], abs=1e-9)
            assert line["sliding"] is pd.NA or metric == "sliding_bpb"
            if line[BELOW].notna().all():
                assert line[BELOW].sum() == pytest.approx(line["float"], abs=1e-9)
            else:
                assert line[BELOW].isna().all()
                assert line["reason"]
    for arm in set(sweep) - {control}:
        shared = set(sweep[arm]) & set(sweep[control])
        is_paired = len(shared) > 1 or (shared and min(len(sweep[arm]), len(sweep[control])) == 1)
        line = decomposed(trials, control=control, curves=curves).loc[arm]
        same = all(sweep[arm][s]["steps"] == sweep[control][s]["steps"] for s in shared)
        assert line["equal_steps"] is not pd.NA or not (is_paired and (has_curves or same))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A slow arm: 250 steps in the time of 300. The control's curve falls from 2.70 at 200 to 2.60 at 300, raw."""
    run = Run(tmp_path / "bits", "name: bits\ncontrol: fast\n")
    for seed in (1, 2):
        fast = {"steps": 300, "step_ms": 2.0, "raw_bpb": 2.60, "sliding_bpb": 2.50 + seed / 100}
        slow = {"steps": 250, "step_ms": 2.4, "raw_bpb": 2.62, "sliding_bpb": 2.49 + seed / 100}
        run.finish("fast", seed, 2.56, 0.010, eval_stride=64, **fast)
        run.finish("slow", seed, 2.55, 0.003, eval_stride=64, **slow)
    return run


def write_curve(run: Run, fingerprint: str, *points: tuple[int, float, float]) -> None:
    events = EventLog(run.layout.trained(fingerprint).events)
    events.write("training", train_fingerprint=fingerprint, seed=1, world_size=1)
    for step, bpb, lr_scale in points:
        events.write("step", step=step, train_loss_nats=4.0, train_s=step / 10, lr_scale=lr_scale)
        events.write("val", step=step, train_s=step / 10, raw_bpb=bpb, val_loss_nats=4.0)


def test_steps_are_told_from_quality(run: Run) -> None:
    """At step 250 the control stands at 2.65: the arm is 0.03 better there, and loses 0.05 for want of 50 steps."""
    trials = results.load(run.layout.root)
    curves = pd.DataFrame(
        {"trial_id": t, "step": s, "val_bpb": b, "lr_scale": 1.0}
        for t in trials.loc[trials["arm"] == "fast", "trial_id"]
        for s, b in ((200, 2.70), (250, 2.65), (300, 2.60))
    )
    line = decomposed(trials, curves=curves).loc["slow"]
    assert line["delta"] == pytest.approx(-0.01)
    assert line["quant_gap"] == pytest.approx(0.003 - 0.010)
    assert line["equal_steps"] == pytest.approx(2.62 - 2.65)
    assert line["fewer_steps"] == pytest.approx(2.65 - 2.60)
    assert line["averaging"] == pytest.approx((2.547 - 2.62) - (2.55 - 2.60))
    assert (line["steps"], line["control_steps"]) == (250, 300)
    assert (line["step_ms"], line["control_step_ms"]) == (2.4, 2.0)
    assert pd.isna(line["reason"])
    mirrored = decomposed(trials, control="slow", curves=curves).loc["fast"]
    for part in ("delta", "float", "quant_gap", "equal_steps", "fewer_steps", "averaging"):
        assert mirrored[part] == pytest.approx(-line[part])
    sliding = decomposed(trials, "sliding_bpb", curves=curves).loc["slow"]
    assert sliding["sliding"] == pytest.approx(-0.01 - -0.01, abs=1e-12)


def test_curves_are_read_from_the_run_folder(run: Run) -> None:
    for seed in (1, 2):
        write_curve(run, f"fp{seed}", (200, 2.70, 0.3), (250, 2.65, 0.0))
    line = decomposed(results.load(run.layout.root)).loc["slow"]
    assert line["fewer_steps"] == pytest.approx(0.05)


def test_unequal_schedules_at_equal_steps_are_told(run: Run) -> None:
    trials = results.load(run.layout.root)
    curves = pd.DataFrame(
        {"trial_id": t, "step": s, "val_bpb": 2.9 - s / 1000, "lr_scale": (1 - s / (300 if a == "fast" else 250))}
        for a, t in zip(trials["arm"], trials["trial_id"], strict=True)
        for s in (200, 240, 250)
    )
    reason = decomposed(trials, curves=curves).loc["slow", "reason"]
    assert "equal steps, unequal schedules: LR multiplier 0.00 against 0.17 at 250" in reason


def test_a_straight_line_over_many_steps_is_called_one(run: Run) -> None:
    for seed in (1, 2):
        write_curve(run, f"fp{seed}", (100, 2.80, 0.5), (200, 2.70, 0.5))
    reason = decomposed(results.load(run.layout.root)).loc["slow", "reason"]
    assert "fast seed 1: interpolated between steps 200 and 300" in reason


@pytest.mark.parametrize(("steps", "expected"), [(110, 2.80 - 0.01), (200, 2.70), (100, 2.80)])
def test_a_run_that_ends_between_the_first_two_validations(tmp_path: Path, steps: int, expected: float) -> None:
    """The control's value comes from the first two points, also where later ones are on another line."""
    run = Run(tmp_path / "bits", "name: bits\ncontrol: fast\n")
    for seed in (1, 2):
        run.finish("fast", seed, 2.56, 0.01, steps=400, raw_bpb=2.60)
        run.finish("slow", seed, 2.90, 0.01, steps=steps, raw_bpb=2.95)
        write_curve(run, f"fp{seed}", (100, 2.80, 0.5), (200, 2.70, 0.4), (300, 2.40, 0.2))
    line = decomposed(results.load(run.layout.root)).loc["slow"]
    assert line["fewer_steps"] == pytest.approx(expected - 2.60)
    assert line["equal_steps"] == pytest.approx(2.95 - expected)
    wide = "fast seed 1: interpolated between steps 100 and 200; fast seed 2: interpolated between steps 100 and 200"
    assert (wide in str(line["reason"])) == (steps == 110)


def test_without_a_curve_steps_are_not_told_from_quality(run: Run) -> None:
    trials = results.load(run.layout.root)
    line = decomposed(trials).loc["slow"]
    assert line[["equal_steps", "fewer_steps", "averaging"]].isna().all()
    assert line["float"] + line["quant_gap"] == pytest.approx(line["delta"])
    assert "fast seed 1 has no validation curve (train.val_every): float is not split" in line["reason"]
    write_curve(run, "fp1", (280, 2.62, 0.1))
    assert "first validated at step 280, after 250" in decomposed(trials).loc["slow", "reason"]


def test_equal_steps_need_no_curve(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    run.finish("int8", 42, 2.5, 0.001, raw_bpb=2.51)
    run.finish("int4", 42, 2.52, 0.011, raw_bpb=2.53)
    line = decomposed(results.load(run.layout.root)).loc["int4"]
    assert (line["fewer_steps"], line["equal_steps"]) == (0.0, pytest.approx(0.02))
    assert line["averaging"] == pytest.approx((2.509 - 2.53) - (2.499 - 2.51))


def test_what_was_not_measured_is_null_with_a_reason(run: Run) -> None:
    trials = results.load(run.layout.root)
    trials.loc[trials["arm"] == "slow", "float_bpb"] = pd.NA
    line = decomposed(trials).loc["slow"]
    assert pd.notna(line["delta"])
    assert line[["float", "quant_gap", "equal_steps"]].isna().all()
    assert "float_bpb and post_quant_bpb were not measured on every seed" in line["reason"]
    assert "sliding_bpb" not in results.decompose(trials.assign(sliding_bpb=pd.NA))["metric"].tolist()


def test_other_evaluations_and_failed_arms_are_rows_with_a_reason(run: Run) -> None:
    run.finish("wide", 1, 2.4, scored_tokens=7, sliding_bpb=2.3, eval_stride=64)
    run.entry("dead", 1, "failed", failure_kind="oom", reason="out of memory")
    table = decomposed(results.load(run.layout.root))
    assert "scored_tokens 7" in table.loc["wide", "reason"]
    assert "no finished trial" in table.loc["dead", "reason"]
    assert table.loc[["wide", "dead"], "delta"].isna().all()


def test_the_cap_and_other_machines_are_told(tmp_path: Path) -> None:
    """Another machine takes other steps: that is no tax of the arm's."""
    run = Run(tmp_path / "bits")
    run.finish("int8", 42, 2.5, raw_bpb=2.51)
    run.finish("int4", 42, 2.5, raw_bpb=2.52, model_bytes=16_000_000, hardware="another", world_size=2)
    reason = decomposed(results.load(run.layout.root)).loc["int4", "reason"]
    assert reason == "1 of 1 seeds over the cap; hardware another, control cpu x2; world_size 2, control 1"

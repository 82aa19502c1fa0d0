"""Kill rules and the curves that they judge; the curves are written with the trainer's own EventLog."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pgray.spec.stopping import KillRule, StoppingSections, check_rules
from pgray.stopping.curves import Curve, CurveFile, Point, read_curve
from pgray.stopping.pruning import Pruning, curve_verdict, seed_verdict
from pgray.stopping.rule import run_verdict
from tests.results.synthetic import result
from trainer.errors import InputError
from trainer.presets.resolve import build_config, input_error
from trainer.records.events import EventLog
from trainer.records.results import LOWER_IS_BETTER, TrialResult
from trainer.run.config import TrainConfig

TRAIN = TrainConfig(iterations=1000, wallclock_s=100.0)


def curve(values: dict[int, float], metric: str = "val_bpb", step_s: float = 0.01) -> Curve:
    """Step -> value as a curve of a run of 1,000 steps and 100 s."""
    points = [
        Point(step, max(step / TRAIN.iterations, step * step_s / TRAIN.wallclock_s), step * step_s, 1e9 + step, value)
        for step, value in values.items()
    ]
    return {metric: points}


def rule(**changes: Any) -> KillRule:
    return KillRule.model_validate({"metric": "val_bpb", "worse_than_control_by": 0.1, **changes})


CONTROL = curve({100: 3.0, 300: 2.0, 500: 1.5, 700: 1.2})


def test_a_run_that_is_too_much_worse_gets_a_verdict_with_all_numbers() -> None:
    assert curve_verdict(rule(), curve({300: 2.09}), CONTROL) is None
    reason = curve_verdict(rule(), curve({300: 2.11}), CONTROL)
    assert reason == (
        "val_bpb 2.1100 is worse than the control's 2.0000 by 0.1100, over 0.1, at step 300, 30% of the run "
        "(rule *: val_bpb worse than the control's by more than 0.1 at the same phase, after 25% of the run)"
    )


def test_between_the_controls_points_its_curve_is_straight() -> None:
    assert curve_verdict(rule(), curve({400: 1.84}), CONTROL) is None
    assert "the control's 1.7500" in str(curve_verdict(rule(), curve({400: 1.86}), CONTROL))


def test_the_same_arm_is_judged_by_step_or_by_phase() -> None:
    """An arm of twice the step time is at step 300 when the control is at 600, if the clock is what ends both."""
    slow, control = curve({300: 1.9}, step_s=0.2), curve({300: 2.0, 600: 1.5}, step_s=0.1)
    assert slow["val_bpb"][0].share == control["val_bpb"][1].share == 0.6
    assert curve_verdict(rule(at="step"), slow, control) is None
    assert curve_verdict(rule(at="phase"), slow, control) is not None


@pytest.mark.parametrize("at", ["step", "phase"])
def test_no_verdict_where_the_control_was_not_measured(at: str) -> None:
    bad = dict.fromkeys(range(300, 800, 100), 9.0)
    assert curve_verdict(rule(at=at), curve(bad), {"val_bpb": []}) is None
    assert curve_verdict(rule(at=at), curve(bad), {}) is None
    assert curve_verdict(rule(at=at), curve({300: 9.0}), curve({310: 1.0, 400: 1.0})) is None, "it began later"
    reason = curve_verdict(rule(at=at), curve(bad), curve({100: 3.0, 450: 2.0}))
    assert "at step 400" in str(reason), "judged where both have been last"


def test_no_verdict_at_the_beginning_of_a_run() -> None:
    bad = curve({100: 9.0, 250: 9.0})
    assert curve_verdict(rule(after_frac=0.25), bad, CONTROL) is None
    assert curve_verdict(rule(after_frac=0.2), bad, CONTROL) is not None


def test_an_arm_that_has_recovered_is_kept() -> None:
    assert curve_verdict(rule(), curve({300: 9.0, 500: 1.5}), CONTROL) is None


def test_one_bad_batch_stops_no_arm() -> None:
    """The training loss is a trailing median of 5: of its own spike and of the control's."""
    steps = range(100, 1000, 50)
    flat = dict.fromkeys(steps, 2.0)
    spike, loss = flat | {950: 9.0}, rule(metric="train_loss_nats")
    assert curve_verdict(loss, curve(spike, "train_loss_nats"), curve(flat, "train_loss_nats")) is None
    risen = flat | dict.fromkeys((850, 900, 950), 2.2)
    assert curve_verdict(loss, curve(risen, "train_loss_nats"), curve(flat, "train_loss_nats")) is not None


@given(
    arm=st.lists(st.floats(allow_nan=True), min_size=1, max_size=8),
    control=st.lists(st.floats(allow_nan=True), max_size=8),
    at=st.sampled_from(["step", "phase"]),
    metric=st.sampled_from(["val_bpb", "train_loss_nats"]),
    after_frac=st.floats(0, 0.99),
)
def test_what_is_not_finite_is_never_a_reason(
    arm: list[float], control: list[float], at: str, metric: str, after_frac: float
) -> None:
    """A verdict names a difference between two finite values, beyond the start of the run."""
    curves = [curve({100 * i: v for i, v in enumerate(values, 1)}, metric) for values in (arm, control)]
    asked = rule(at=at, metric=metric, after_frac=after_frac)
    reason = curve_verdict(asked, *curves)
    if reason is not None:
        assert "nan" not in reason
        assert max(p.share for p in curves[0][metric] if math.isfinite(p.value)) > after_frac
    assert curve_verdict(asked, curves[0], curves[0]) is None, "no arm is worse than itself"


def test_rules_cover_names_and_patterns_but_never_the_control() -> None:
    assert rule().covers("anything", control="c")
    assert not rule().covers("c", control="c")
    assert not rule(arm="c").covers("c", control="c")
    assert rule(arm="qna*").covers("qna+sqwa", control="c")
    assert not rule(arm="qna").covers("qna+sqwa", control="c")
    assert rule(arm="bits=[4, 5]").covers("bits=[4, 5]", control="c"), "a name is a name, whatever it contains"


def test_a_shared_training_run_ends_only_when_no_arm_needs_it() -> None:
    bad = curve({300: 9.0})
    any_arm, mild, strict = (
        Pruning(section, "c") for section in (rule(), rule(arm="b", worse_than_control_by=100), rule(arm="a"))
    )
    assert run_verdict([any_arm], ["a", "b"], bad, CONTROL) is not None
    assert run_verdict([mild, strict], ["a"], bad, CONTROL) is not None
    assert run_verdict([mild, strict], ["a", "b"], bad, CONTROL) is None
    assert run_verdict([any_arm], ["a", "c"], bad, CONTROL) is None, "the control needs it"
    assert run_verdict([any_arm], [], bad, CONTROL) is None
    assert run_verdict([], ["a"], bad, CONTROL) is None


def test_end_metrics_judge_a_finished_seed() -> None:
    bytes_rule = rule(metric="artifact_bytes", worse_than_control_by=1000)
    arm, control = result("a", 1, model_bytes=9_002_000), result("c", 1)
    assert seed_verdict(bytes_rule, arm, control) == (
        "artifact_bytes 9,052,000 is worse than the control's 9,050,000 by 2,000, over 1000, with seed 1 "
        "(rule *: artifact_bytes worse than the control's by more than 1000 at the end of a seed)"
    )
    assert seed_verdict(bytes_rule, control, arm) is None
    assert seed_verdict(bytes_rule, arm, result("c", 2)) is None, "another seed says nothing"
    assert seed_verdict(rule(metric="sliding_bpb"), arm, control) is None, "not measured"
    assert seed_verdict(rule(metric="val_bpb"), arm, control) is None, "a curve metric"
    sliding = rule(metric="sliding_bpb", worse_than_control_by=0.003)
    measured = result("c", 1, sliding_bpb=1.2)
    assert seed_verdict(sliding, result("a", 1, sliding_bpb=1.2029), measured) is None
    assert seed_verdict(sliding, result("a", 1, sliding_bpb=1.2031), measured) is not None
    assert seed_verdict(sliding, arm, measured) is None


def test_every_end_metric_is_a_number_of_a_result() -> None:
    numbers = {n for n, f in TrialResult.model_fields.items() if f.annotation in (int, float, float | None)}
    assert set(LOWER_IS_BETTER) <= numbers


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"metric": "loss"}, "metric"),
        ({"worse_than_control_by": 0.0}, "worse_than_control_by"),
        ({"after_frac": 1.0}, "after_frac"),
        ({"metric": "sliding_bpb", "at": "step"}, "at"),
        ({"metric": "sliding_bpb", "after_frac": 0.5}, "after_frac"),
        ({"worse": 1}, "worse"),
    ],
)
def test_a_bad_rule_is_one_line(wrong: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as error:
        rule(**wrong)
    assert str(input_error(error.value, "s.yaml", "kill.0")).startswith(f"s.yaml: kill.0.{key}: ")


def test_a_rule_that_could_never_act_is_refused() -> None:
    plain = build_config({}, "test")
    validating = build_config({"train.val_every": 100}, "test")
    check_rules(StoppingSections(kill=[rule()]), {"c": validating, "a": validating}, "c", "s.yaml")
    some = StoppingSections(kill=[rule(arm="a")])
    check_rules(some, {"c": validating, "a": validating, "b": plain}, "c", "s.yaml")
    for configs, asked, expected in (
        (
            {"c": validating, "a": plain},
            rule(),
            "kill.0.metric: val_bpb: arm a does not measure it; set train.val_every",
        ),
        ({"c": plain, "a": validating}, rule(), "arm c does not measure it"),
        (
            {"c": plain, "a": plain},
            rule(arm="b*"),
            "kill.0.arm: b*: covers no arm other than the control; use one of a",
        ),
        ({"c": plain, "a": plain}, rule(arm="c"), "covers no arm"),
        ({"c": plain, "a": plain}, rule(metric="ttt_bpb"), "set eval.ttt.enabled"),
    ):
        with pytest.raises(InputError) as error:
            check_rules(StoppingSections(kill=[asked]), configs, "c", "s.yaml")
        assert expected in str(error.value)


def write(log: EventLog, steps: range, loss: float = 3.0) -> None:
    for step in steps:
        log.write("step", step=step, train_s=step / 10, train_loss_nats=loss)
        log.write("val", step=step, train_s=step / 10, raw_bpb=loss / 2, val_loss_nats=loss)


def steps_of(curve: Curve, metric: str = "val_bpb") -> list[int]:
    return [point.step for point in curve[metric]]


def test_curves_are_read_as_they_grow(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = CurveFile(path, TRAIN)
    assert not any(follower.read().values()), "no file yet"
    log = EventLog(path)
    log.write("training", seed=1)
    write(log, range(100, 300, 100))
    first = follower.read()
    assert steps_of(first) == steps_of(first, "train_loss_nats") == [100, 200]
    assert first["val_bpb"][0].value == 1.5
    assert [point.share for point in first["val_bpb"]] == [0.1, 0.2], "steps and clock agree here"
    line = json.dumps({"event": "val", "at": 1.0, "step": 300, "train_s": 90.0, "raw_bpb": 1.0}) + "\n"
    with path.open("a") as file:
        file.write(line[:20])
    assert steps_of(follower.read()) == [100, 200], "half a line waits for its end"
    with path.open("a") as file:
        file.write(line[20:])
    assert steps_of(follower.read()) == [100, 200, 300]
    assert follower.read()["val_bpb"][-1].share == 0.9, "the clock binds"
    assert follower.read() == read_curve(path, TRAIN)


def test_only_steps_that_the_weights_went_through_count(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write("training", seed=1)
    write(log, range(100, 600, 100), loss=3.0)
    log.write("training", seed=1)
    log.write("resumed", step=300, train_s=30.0)
    write(log, range(400, 600, 100), loss=2.0)
    resumed = read_curve(log.path or tmp_path, TRAIN)
    assert [(p.step, p.value) for p in resumed["train_loss_nats"]] == [
        (100, 3.0), (200, 3.0), (300, 3.0), (400, 2.0), (500, 2.0),
    ]  # fmt: skip
    log.write("training", seed=1)
    write(log, range(100, 200, 100), loss=4.0)
    assert steps_of(read_curve(log.path or tmp_path, TRAIN)) == [100], "an attempt from scratch"


def test_invalid_lines_of_a_log_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    good = {"event": "val", "at": 1.0, "step": 100, "train_s": 1.0, "raw_bpb": 2.0}
    bad = [good | {"raw_bpb": math.nan}, good | {"raw_bpb": None}, good | {"step": "x"}, {"event": "val"}, [1], 7]
    path.write_text("\n".join([*(json.dumps(line) for line in bad), "{cut", json.dumps(good), ""]))
    assert steps_of(read_curve(path, TRAIN)) == [100]
    follower = CurveFile(path, TRAIN)
    follower.read()
    path.write_text(json.dumps(good | {"step": 5}) + "\n")
    assert steps_of(follower.read()) == [5], "a shorter file has replaced it"

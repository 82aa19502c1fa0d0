"""What holds for every stopping rule, found as the scheduler finds them, and for a new one."""

from collections.abc import Collection
from typing import Any, get_args

import pytest

from pgray.spec.stopping import KillRule, Race, StoppingSection, StoppingSections
from pgray.stopping.rule import Results, StoppingRule, arms_to_drop, run_verdict, stopping_rules
from tests.pgray.stopping.test_pruning import CONTROL, curve
from tests.results.synthetic import result
from trainer.errors import InputError

SECTIONS: list[StoppingSection] = [
    KillRule(metric="val_bpb", worse_than_control_by=0.1),
    KillRule(metric="post_quant_bpb", worse_than_control_by=0.1),
    Race(metric="post_quant_bpb"),
]
RULES = stopping_rules(SECTIONS, "c")
BAD: Results = {
    arm: {seed: result(arm, seed, bpb + 0.001 * (seed % 2) * (arm == "b")) for seed in (1, 2, 3)}
    for arm, bpb in (("c", 1.0), ("a", 1.0), ("b", 2.0))
}


def test_every_section_of_a_sweep_file_has_a_rule() -> None:
    types = {cls for field in StoppingSections.model_fields.values() for cls in _classes(field.annotation)}
    assert types == {
        rule.section_type for rule in StoppingRule.__subclasses__() if rule.__module__.startswith("pgray.")
    }


def _classes(annotation: Any) -> list[type]:
    if not get_args(annotation):
        return [annotation] if annotation is not type(None) else []
    return [cls for part in get_args(annotation) for cls in _classes(part)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.section.text)
class TestEveryRule:
    def test_it_judges_a_clearly_worse_arm_and_gives_the_reason_in_one_line(self, rule: StoppingRule[Any]) -> None:
        judged = rule.judge_results(BAD, ()) | rule.judge_curves(["b"], curve({500: 9.0}), CONTROL)
        assert set(judged) == {"b"}
        assert rule.section.metric in judged["b"]
        assert "\n" not in judged["b"]

    def test_it_never_stops_the_control(self, rule: StoppingRule[Any]) -> None:
        worst = {**BAD, "c": BAD["b"], "b": BAD["c"]}
        assert "c" not in rule.judge_results(worst, ())
        assert not rule.judge_curves(["c"], curve({500: 9.0}), CONTROL)

    def test_it_judges_nothing_without_measurements(self, rule: StoppingRule[Any]) -> None:
        assert rule.judge_results({}, ()) == rule.judge_results({"c": {}, "b": {}}, ()) == {}
        assert rule.judge_curves(["b"], {}, {}) == {}

    def test_it_reads_curves_or_results(self, rule: StoppingRule[Any]) -> None:
        assert bool(rule.judge_results(BAD, ())) is not rule.reads_curves

    def test_it_holds_back_no_first_seed(self, rule: StoppingRule[Any]) -> None:
        assert 1 not in rule.held_back_seeds([1, 2, 3], {1, 2, 3})
        assert rule.held_back_seeds([1, 2, 3], ()) == set()


def test_a_race_holds_back_later_seeds_and_does_not_test_unfinished_ones() -> None:
    race = RULES[2]
    assert race.held_back_seeds([5, 6, 7, 8], {5, 6, 7, 8}) == {7, 8}
    assert race.held_back_seeds([5, 6, 7, 8], {7, 8}) == {8}
    assert race.judge_results(BAD, {2, 3}) == {}


def test_a_kill_rule_that_covers_no_arm_is_refused() -> None:
    (rule,) = stopping_rules([KillRule(arm="x*", metric="val_bpb", worse_than_control_by=1)], "c")
    with pytest.raises(InputError, match=r"run: arm: x\*: covers no arm other than the control; use one of a, b"):
        rule.check_arms(["c", "a", "b"], "run")


class SlowSection(StoppingSection):
    metric: str = "step_ms"
    limit: float

    @property
    def text(self) -> str:
        return f"no slower than {self.limit:g} ms"


def test_a_new_rule_is_one_class_with_its_section() -> None:
    class Slow(StoppingRule[SlowSection]):
        section_type = SlowSection
        label = "slow"

        def judge_results(self, results: Results, unfinished_seeds: Collection[int]) -> dict[str, str]:
            return {
                a: self.section.text
                for a, r in results.items()
                if any(x.step_ms > self.section.limit for x in r.values())
            }

    step_ms = BAD["a"][1].step_ms
    rules = stopping_rules([SlowSection(limit=step_ms - 1), *SECTIONS], "c")
    assert arms_to_drop(rules, BAD, ())["b"] == ("slow", f"no slower than {step_ms - 1:g} ms")
    assert arms_to_drop(RULES, BAD, ())["b"][0] == "seed"
    assert run_verdict(rules, ["b"], curve({500: 9.0}), CONTROL) is not None

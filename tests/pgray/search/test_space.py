"""The section `search:`: bad input is refused in one line that names file, key, value and fix; contents of a draw."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pgray.search.space import Space, make_space
from pgray.spec.search import Search
from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import build_config, config_keys, input_error, load_preset
from trainer.records.results import METRICS

BASE = load_preset("cpu-smoke").overrides
LR = {"optim.matrix_lr": {"log_uniform": [1e-3, 0.1]}}


def build(changes: Mapping[str, Any], where: str) -> Config:
    return build_config({**BASE, **changes}, f"t.yaml: {where}")


def space_of(raw: Any) -> Space:
    """Read the section as from a sweep file: InputError or a space."""
    try:
        search = Search.model_validate(raw)
    except ValidationError as error:
        raise input_error(error, "t.yaml", "search") from None
    return make_space(search, build, "t.yaml")


def raw(**changes: Any) -> dict[str, Any]:
    return {"trials": 8, "space": LR, **changes}


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"trials": 0}, ["t.yaml: search.trials: 0: must be"]),
    ({"sampler": "bayes"}, ["search.sampler: bayes: unknown sampler; use one of cmaes, gp, nsga2, random, tpe"]),
    ({"spaec": {}}, ["search.spaec", "unknown key"]),
    ({"space": {}}, ["search.space"]),
    ({"space": {"optim.matrix_lrr": {"uniform": [0, 1]}}}, ["optim.matrix_lrr: 0.0: unknown key; did you mean"]),
    ({"space": {"optim": {"uniform": [0, 1]}}}, ["t.yaml: search: space: optim", "a section, not a value"]),
    ({"space": {"seed": {"int": [1, 2]}}}, ["search.space.seed", "seeds: [...]"]),
    ({"space": {"optim.matrix_lr": {"uniform": [0.1, 0.1]}}}, ["space.optim.matrix_lr.uniform: [0.1, 0.1]: the first number"]),
    ({"space": {"optim.matrix_lr": {"log_uniform": [0, 0.1]}}}, ["log_uniform", "must begin above 0"]),
    ({"space": {"optim.matrix_lr": {"uniform": [0.1]}}}, ["uniform: [0.1]: must be two numbers"]),
    ({"space": {"optim.matrix_lr": {"uniform": [0, float("nan")]}}}, ["uniform", "must be finite"]),
    ({"space": {"optim.matrix_lr": {}}}, ["none: give exactly one of log_uniform, uniform, int, choice"]),
    ({"space": {"optim.matrix_lr": {"uniform": [0, 1], "choice": [1, 2]}}}, ["uniform and choice: give exactly one"]),
    ({"space": {"optim.matrix_lr": {"choice": [0.1, 0.1]}}}, ["choice: 0.1: the same choice twice"]),
    ({"space": {"optim.matrix_lr": {"choice": [0.1]}}}, ["choice: [0.1]: needs two or more"]),
    ({"space": {"optim.matrix_lr": {"choice": [{"a": 1}, 2]}}}, ["choice: {'a': 1}: a choice is a number"]),
    ({"space": {"optim.matrix_lr": {"int": [1, 2.5]}}}, ["space.optim.matrix_lr.int.1: 2.5: must be a whole number"]),
    ({"space": {"train.iterations": {"int": [1, 10**30]}}}, ["must be within -1000000000..1000000000"]),
    ({"space": {"optim.ns_steps": {"int": [1, 21]}}}, ["t.yaml: search: space.optim.ns_steps at 21: optim.ns_steps: 21"]),
    ({"space": {"optim.ns_steps": {"uniform": [1, 3]}}}, ["optim.ns_steps: 1.0: must be a whole number"]),
    ({"space": {"model.heads": {"choice": [2, 3]}}}, ["space.model.heads at 3", "kv_heads: 2: must divide heads 3"]),
    ({"objectives": {}}, ["search.objectives"]),
    ({"objectives": {"sliding": "min"}},
     ["search.objectives.sliding: sliding: is not a numeric column; did you mean sliding_bpb?"]),
    ({"objectives": {"node": "min"}}, ["objectives.node", "is not a numeric column"]),
    ({"objectives": {"sliding_bpb": "down"}}, ["search.objectives.sliding_bpb: down: must be 'min' or 'max'"]),
    ({"objectives": {"ttt_bpb": "min"}}, ["search.objectives: ttt_bpb: is not measured, since eval.ttt.enabled is False"]),
    ({"constraints": {"artifact_bytes": "< 5"}}, ['constraints.artifact_bytes: < 5: must be "<= NUMBER" or ">= NUMBER"']),
    ({"constraints": {"artifact_bytes": "<= 1e999"}}, ["1e999", "must be"]),
    ({"constraints": {"artifact_bytes": 5}}, ["constraints.artifact_bytes: 5: must be text"]),
    ({"constraints": {"arm": "<= 5"}}, ["constraints.arm", "is not a numeric column"]),
    ({"when": {"optim.matrix_l": "true"}}, ["search.when.optim.matrix_l: true: is not a key of space"]),
    ({"when": {"optim.matrix_lr": "layers < 3"}}, ["search.when.optim.matrix_lr: layers < 3: layers is not a config key"]),
    ({"when": {"optim.matrix_lr": "optim.matrix_lr < 3"}}, ["search.when.optim.matrix_lr", "circular conditions"]),
    ({"parallel": 0}, ["search.parallel: 0"]),
    ({"sampler": "cmaes", "objectives": {"sliding_bpb": "min", "train_s": "min"}},
     ["sampler: cmaes: does not support several objectives; make one a constraint, or use one of gp, nsga2, random, tpe"]),
    ({"sampler": "cmaes", "space": {"export.codec": {"choice": ["zstd", "lzma"]}}},
     ["sampler: cmaes: does not support choices, and export.codec is one; make it a range, or use one of gp, nsga2"]),
    ({"sampler": "cmaes", "when": {"optim.matrix_lr": "model.layers > 3"}},
     ["sampler: cmaes: does not support conditional keys; remove when, or use one of gp, nsga2, random, tpe"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "parts"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_bad_input_is_refused_in_one_line_with_a_fix(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        space_of(raw(**changes))
    message = str(caught.value)
    assert message.startswith("t.yaml: search")
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_circular_conditions_name_their_keys() -> None:
    space = {"model.layers": {"int": [4, 6]}, "optim.ns_steps": {"int": [1, 3]}, "optim.matrix_lr": {"uniform": [0, 1]}}
    when = {"model.layers": "optim.ns_steps > 1", "optim.ns_steps": "model.layers > 4"}
    with pytest.raises(InputError, match=r"circular conditions: .*model\.layers -> optim\.ns_steps"):
        space_of(raw(space=space, when=when))


def test_defaults() -> None:
    space = space_of(raw())
    assert space.objectives == {"sliding_bpb": "min"}
    assert [bound.text for bound in space.search.bounds] == ["artifact_bytes <= 16000000"]
    without_sliding = make_space(Search.model_validate(raw()), lambda c, w: build({"eval.stride": 0, **c}, w), "t.yaml")
    assert without_sliding.objectives == {"post_quant_bpb": "min"}
    search = Search.model_validate(raw(objectives={"sliding_bpb": "min"}))
    with pytest.raises(InputError, match=r"sliding_bpb: is not measured, since eval\.stride is 0"):
        make_space(search, lambda c, w: build({"eval.stride": 0, **c}, w), "t.yaml")


def test_the_byte_cap_is_a_constraint_unless_another_is_given() -> None:
    texts = [bound.text for bound in Search.model_validate(raw(constraints={"train_s": "<= 600"})).bounds]
    assert texts == ["artifact_bytes <= 16000000", "train_s <= 600"]
    texts = [bound.text for bound in Search.model_validate(raw(constraints={"artifact_bytes": "<= 4_000_000"})).bounds]
    assert texts == ["artifact_bytes <= 4000000"]


def test_excess_is_positive_on_the_wrong_side_of_a_bound() -> None:
    search = Search.model_validate(raw(constraints={"artifact_bytes": "<= 100", "qat_coverage": ">=0.5"}))
    at_most, at_least = search.bounds
    assert (at_most.excess(103), at_most.excess(100), at_most.excess(90)) == (3, 0, -10)
    assert (at_least.excess(0.25), at_least.excess(0.5), at_least.excess(1.0)) == (0.25, 0, -0.5)


def test_metrics_are_the_numbers_of_a_result() -> None:
    assert {"sliding_bpb", "artifact_bytes", "train_s", "qat_coverage", "steps"} <= set(METRICS)
    assert not {"seed", "schema_version", "is_within_cap", "qat_is_live", "node", "tensors"} & set(METRICS)


def test_a_key_that_the_command_line_sets_cannot_be_searched() -> None:
    with pytest.raises(InputError, match=r"search\.space\.optim\.matrix_lr: .*--set gives this key another value"):
        make_space(Search.model_validate(raw()), lambda c, w: build({**c, "optim.matrix_lr": 0.02}, w), "t.yaml")


CHAIN = {
    "trials": 8,
    "space": {
        "average.every": {"int": [1, 9]},
        "recurrence.loops": {"int": [2, 3]},
        "average.count": {"int": [2, 5]},
        "average.kind": {"choice": ["none", "ema", "swa"]},
        "recurrence.kind": {"choice": ["none", "loops"]},
        "quant.keep_fp16": {"choice": [[], ["embed*"]]},
    },
    "when": {
        "average.count": "average.kind == 'swa'",
        "average.every": "average.count > 3",
        "recurrence.loops": "recurrence.kind == 'loops'",
    },
}


@given(st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_conditional_keys_are_drawn_exactly_if_their_condition_holds(rng: random.Random) -> None:
    space = space_of(CHAIN)
    picks = {
        key: rng.choice(d.choice) if d.choice is not None else rng.randint(*d.ends)
        for key, d in space.search.space.items()
    }
    changes = space.draw(lambda key: picks[key])
    assert ("average.count" in changes) == (picks["average.kind"] == "swa")
    assert ("average.every" in changes) == (picks["average.kind"] == "swa" and picks["average.count"] > 3)
    assert ("recurrence.loops" in changes) == (picks["recurrence.kind"] == "loops")
    build(changes, "drawn")  # though neither `kind` alone would be valid over the base
    assert space.contains(changes)
    assert not space.contains({**changes, "optim.matrix_lr": 0.1})
    assert not space.contains({key: changes[key] for key in list(changes)[1:]})
    assert not space.contains({**changes, "quant.keep_fp16": ["other"]})


NUMBERS = st.one_of(st.integers(-3, 12), st.floats(), st.integers(), st.sampled_from([0.1, 1e-3, 1.0]))
VALUES = st.one_of(NUMBERS, st.booleans(), st.none(), st.text(max_size=3), st.lists(st.integers(0, 3), max_size=2))
DIMENSION = st.one_of(
    st.dictionaries(st.sampled_from(["uniform", "log_uniform", "int", "choice"]), st.lists(VALUES, max_size=3), max_size=2),
    st.builds(lambda kind, low, width: {kind: [low, low + width]}, st.sampled_from(["uniform", "int"]), NUMBERS, NUMBERS),
    st.builds(lambda values: {"choice": values}, st.lists(NUMBERS, min_size=2, max_size=3, unique=True)),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(sorted(config_keys())), st.sampled_from(["optim", "nope", "", "model.layers.x", "quant.bits"])
)
CONDITION = st.sampled_from(
    ["true", "model.layers > 3", "qat.enabled", "optim.matrix_lr < 'a'", "(", "f(3)", "average.count > 1"]
)
SEARCH = st.fixed_dictionaries(
    {"trials": st.integers(0, 3), "space": st.dictionaries(KEYS, DIMENSION, max_size=3)},
    optional={
        "sampler": st.sampled_from(["tpe", "random", "nsga2", "cmaes", "gp", "x"]),
        "objectives": st.dictionaries(st.sampled_from([*METRICS, "x"]), st.sampled_from(["min", "max", "x"]), max_size=2),
        "constraints": st.dictionaries(st.sampled_from([*METRICS, "x"]), st.sampled_from(["<= 3", ">=1", "3"]), max_size=2),
        "when": st.dictionaries(KEYS, CONDITION, max_size=2),
        "parallel": st.integers(0, 2),
    },
)  # fmt: skip


@given(st.one_of(SEARCH, VALUES, st.dictionaries(st.text(max_size=5), VALUES, max_size=3)))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_section_is_refused_in_one_line_or_can_be_searched(section: Any) -> None:
    from pgray.search.study import Study

    try:
        space = space_of(section)
        study = Study("s", space.search, build, 0)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    proposal = study.ask()
    if proposal is None:  # each end alone is valid, but not what was drawn together
        assert study.why_exhausted
    else:
        assert space.contains(proposal.changes)
        build(proposal.changes, "drawn")

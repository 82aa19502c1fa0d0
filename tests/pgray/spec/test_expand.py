"""Designs and the order of overrides: the arms and trials that a sweep file expands to."""

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pgray.spec.designs import changes_text
from pgray.spec.expand import Expansion, expand, identical_arms
from pgray.spec.expressions import Condition
from pgray.spec.sweep import Sweep
from trainer.config import Config
from trainer.errors import InputError
from trainer.records.fingerprint import train_fingerprint, trial_id

BASE: dict[str, Any] = {"name": "t", "preset": "cpu-smoke", "seeds": [1, 2]}


def expanded(command: dict[str, Any] | None = None, preset: str | None = None, **parts: Any) -> Expansion:
    text = yaml.safe_dump({**BASE, **parts}, sort_keys=False)
    return expand(Sweep.from_text(text, "t.yaml", preset=preset, overrides=command))


def configs(expansion: Expansion) -> dict[str, Config]:
    return {arm.name: arm.config for arm in expansion.arms}


VALUES = {
    "quant.bits.mlp": st.sampled_from([2, 4, 6, 8, 16]),
    "quant.bits.attn": st.sampled_from([3, 5, 7]),
    "qna.magnitude": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    "average.kind": st.sampled_from(["none", "ema"]),
    "qat.enabled": st.booleans(),
    "quant.keep_fp16": st.sampled_from([[], ["*.embed"], ["a", "b"]]),
}
GRIDS = st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({k: st.lists(VALUES[k], min_size=1, max_size=3, unique_by=repr) for k in keys})
)
SEEDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3, unique=True)


@settings(deadline=None)  # other processes may use the cores
@given(grid=GRIDS, seeds=SEEDS)
def test_a_grid_is_exactly_the_product(grid: dict[str, list[Any]], seeds: list[int]) -> None:
    expansion = expanded(grid=grid, seeds=seeds)
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    assert [arm.changes for arm in expansion.arms] == points
    assert [(t.arm, t.seed) for t in expansion.trials] == [(a.name, s) for a in expansion.arms for s in seeds]
    identities = [trial_id(t.arm, t.config, train_fingerprint(t.config, "d", "t", 1, "cpu")) for t in expansion.trials]
    assert len(set(identities)) == len(points) * len(seeds)


@settings(deadline=None)  # other processes may use the cores
@given(factors=GRIDS, seeds=SEEDS)
def test_one_factor_is_the_control_and_each_value_alone(factors: dict[str, list[Any]], seeds: list[int]) -> None:
    expansion = expanded(one_factor=factors, seeds=seeds)
    alone = [{key: value} for key, values in factors.items() for value in values]
    assert [arm.changes for arm in expansion.arms] == [{}, *alone]
    assert expansion.control == "control"
    assert len(expansion.trials) == (1 + len(alone)) * len(seeds)


def test_names_of_a_grid() -> None:
    grid = {"qna.magnitude": [1.0, 0.5], "qat.enabled": [True], "quant.keep_fp16": [["a/b"]]}
    expansion = expanded(grid=grid)
    names = [arm.name for arm in expansion.arms]
    assert names[0] == 'qna.magnitude=1.0,qat.enabled=true,quant.keep_fp16=["a|b"]'


def test_leave_one_out() -> None:
    full = {"qna.magnitude": 1.0, "average.kind": "none", "model.smear_gate": True}
    parts = {"qna": {"qna.magnitude": 0.0}, "last": {"average.kind": "none"}}
    expansion = expanded(leave_one_out={"full": full, "parts": parts})
    found = configs(expansion)
    assert list(found) == ["full", "full minus qna", "full minus last"]
    assert expansion.control == "full"
    assert found["full minus qna"].qna.magnitude == 0.0
    assert found["full minus qna"].average.kind == "none"
    assert found["full minus last"].average.kind == "ema"  # the preset's
    assert found["full minus last"].qna.magnitude == 1.0


def test_later_wins_from_preset_to_command_line() -> None:
    arms = {
        "a": {"train.iterations": 3},
        "b": {"extends": "a", "qna.magnitude": 1.0},
        "c": {"extends": "b", "qna.magnitude": 2.0, "model": {"layers": 5, "dim": 64}},
        "plain": None,
    }
    at = {
        "cpu-smoke": {"set": {"train.grad_clip": 0.9}, "arms": {"b": {"qna.magnitude": 1.5}, "a": {"eval.stride": 8}}}
    }
    found = configs(expanded(arms=arms, at=at, set={"train.grad_clip": 0.5, "train.iterations": 2}))
    assert (found["plain"].train.iterations, found["plain"].train.grad_clip) == (2, 0.9)
    assert (found["a"].train.iterations, found["a"].eval.stride) == (3, 8)
    assert (found["b"].train.iterations, found["b"].qna.magnitude, found["b"].eval.stride) == (3, 1.5, 8)
    assert (found["c"].qna.magnitude, found["c"].model.layers, found["c"].eval.stride) == (2.0, 5, 8)
    found = configs(expanded({"qna.magnitude": 9.0}, arms=arms, at=at))
    assert {config.qna.magnitude for config in found.values()} == {9.0}


def test_another_preset_replaces_the_machine_and_applies_its_overrides() -> None:
    parts: dict[str, Any] = {
        "preset": "sp1024-11l",
        "resources": {"gpus": 4, "cpus": 8},
        "arms": {"a": {"model.value_embed.layers": [9, 10]}},
        "at": {"cpu-smoke": {"arms": {"a": {"model.value_embed.layers": [3]}}}},
    }
    text = yaml.safe_dump({**BASE, **parts})
    big, small = Sweep.from_text(text), Sweep.from_text(text, preset="cpu-smoke")
    assert (big.machine.gpus, big.machine.cpus, big.machine.nproc) == (4, 8, 4)
    assert (small.machine.gpus, small.machine.nproc) == (0, 1)
    assert expand(big).arms[0].config.model.value_embed.layers == (9, 10)
    assert expand(small).arms[0].config.model.value_embed.layers == (3,)
    assert expand(small).arms[0].config.model.layers == 4


def test_a_preset_may_be_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("about: x\nmachine: {nproc: 2, cpus: 2}\nset: {model.layers: 3}\n")
    sweep = Sweep.from_text(yaml.safe_dump({**BASE, "preset": str(tmp_path / "mine.yaml"), "arms": {"a": {}}}))
    assert sweep.machine.nproc == 2
    assert expand(sweep).arms[0].config.model.layers == 3


@pytest.mark.parametrize("key", ["name", "abuot"])
def test_a_preset_with_an_unknown_key_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"{key}: x\n")
    with pytest.raises(InputError, match=f"mine.yaml: {key}: x: unknown key"):
        Sweep.from_text(yaml.safe_dump({**BASE, "preset": str(tmp_path / "mine.yaml"), "arms": {"a": {}}}))


def test_where_drops_and_counts() -> None:
    grid = {"quant.bits.mlp": [4, 6, 8], "qat.enabled": [False, True]}
    expansion = expanded(grid=grid, where=["not qat.enabled or quant.bits.mlp < 8"])
    assert len(expansion.arms) == 5
    assert expansion.dropped == ("quant.bits.mlp=8,qat.enabled=true (where not qat.enabled or quant.bits.mlp < 8)",)


def test_where_must_not_drop_the_control() -> None:
    with pytest.raises(InputError, match="excludes the control a"):
        expanded(arms={"a": {}, "b": {}}, control="a", where=["model.layers > 100"])


def test_when_removes_a_key_if_its_condition_does_not_hold() -> None:
    grid = {"qat.enabled": [False, True], "qat.reset_ema": [False, True]}
    expansion = expanded(grid=grid, when={"qat.reset_ema": "qat.enabled"})
    assert [arm.name for arm in expansion.arms] == [
        "qat.enabled=false",
        "qat.enabled=true,qat.reset_ema=false",
        "qat.enabled=true,qat.reset_ema=true",
    ]
    assert expansion.merged == ("qat.enabled=false,qat.reset_ema=true",)


def test_when_for_keys_that_only_make_sense_together() -> None:
    grid = {"qat.enabled": [False, True], "qat.start.kind": ["wallclock_frac"], "qat.start.value": [0.5]}
    found = configs(expanded(grid=grid, when={"qat.start.kind": "qat.enabled", "qat.start.value": "qat.enabled"}))
    assert list(found) == ["qat.enabled=false", "qat.enabled=true,qat.start.kind=wallclock_frac,qat.start.value=0.5"]


def test_changes_text_shortens_uniform_sections() -> None:
    classes = ("mlp", "attn", "embed", "bigram", "value_embed", "other")
    all_six = {f"quant.bits.{name}": 6 for name in classes}
    assert (
        changes_text({"qat.enabled": True, **all_six, "eval.stride": 8})
        == "qat.enabled=true, quant.bits.*=6, eval.stride=8"
    )
    assert changes_text({**all_six, "quant.bits.mlp": 4}).startswith("quant.bits.mlp=4, quant.bits.attn=6, ")


def test_identical_arms_are_named() -> None:
    expansion = expanded(arms={"a": {}, "b": {"qna.magnitude": 0.0}, "c": {"qna.magnitude": 1.0}})
    assert identical_arms(expansion.arms) == [["a", "b"]]


@pytest.mark.parametrize(
    ("text", "is_true"),
    [
        ("model.layers == 4", True),
        ("2 < model.layers <= 3", False),
        ("model.dim / model.heads >= 16 and not qat.enabled", True),
        ("average.kind in ['ema', 'swa'] or false", True),
        ("average.kind not in ['ema']", False),
        ("average.half_life_frac == null", True),
        ("model.value_embed.layers == [3]", True),
        ("-model.layers + 1 == -3", True),
    ],
)
def test_conditions(text: str, is_true: bool) -> None:
    config = expanded(arms={"a": {}}).arms[0].config
    assert Condition(text, "t.yaml", "where.0").holds(config) is is_true


@pytest.mark.parametrize(
    "text", ["__import__('os')", "model.layers.real", "model", "lambda: 1", "x <", "", "model.layers[0]", "layers == 4"]
)
def test_other_expressions_are_refused_as_conditions(text: str) -> None:
    with pytest.raises(InputError, match=r"t\.yaml: where\.0: "):
        Condition(text, "t.yaml", "where.0")


@pytest.mark.parametrize(
    "text",
    [
        "'a' * 10**10 == 'b'",
        "'a' * 10000000000 == 'b'",
        "[1] * 10000000000 == []",
        "'%10000000000d' % 5 == 'b'",
        "2 ** 1000000000 > 1",
        "1 << 10000000000 > 1",
        "model.layers ** model.dim ** model.dim > 1",
        "9" * 5000 + " > 1",
        "*".join(["9" * 900] * 2000) + " > 1",
        "(" * 950 + "1" + ")" * 900,
        "'a' + 'b' == 'ab'",
    ],
    ids=lambda text: text[:20],
)
def test_conditions_that_would_take_all_memory_or_time_are_refused_at_once(text: str) -> None:
    config = expanded(arms={"a": {}}).arms[0].config
    began = time.monotonic()
    with pytest.raises(InputError, match=r"t\.yaml: where\.0: .{1,1500}$"):
        Condition(text, "t.yaml", "where.0").holds(config)
    assert time.monotonic() < began + 1.0


@pytest.mark.parametrize("num_arms", [100, 101, 3000])
def test_a_chain_of_extends_has_an_end(num_arms: int) -> None:
    arms: dict[str, Any] = {"a0": {}}
    arms |= {f"a{i}": {"extends": f"a{i - 1}", "optim.ns_steps": 1 + i % 5} for i in range(1, num_arms)}
    began = time.monotonic()
    if num_arms <= 100:
        assert configs(expanded(arms=arms))["a99"].optim.ns_steps == 5
        return
    with pytest.raises(
        InputError, match=r"t\.yaml: arms\.a1\.extends: a0: is in a chain of more than 100 arms; let the"
    ):
        expanded(arms=arms)
    assert time.monotonic() < began + 5.0


def test_comparing_text_with_a_number_is_refused() -> None:
    config = expanded(arms={"a": {}}).arms[0].config
    with pytest.raises(InputError, match="cannot be evaluated"):
        Condition("average.kind < 3", "t.yaml", "where.0").holds(config)


def test_arms_of_a_grid_have_labels_and_may_be_named() -> None:
    grid = {"quant.bits.mlp": [4, 6], "average.kind": ["ema", "none"]}
    plain = expanded(grid=grid)
    assert list(plain.labels.values()) == ["mlp=4 ema", "mlp=4 average=none", "mlp=6 ema", "mlp=6 average=none"]
    named = expanded(grid=grid, control="mlp=6 ema", names={"mlp=4 ema": "small"})
    assert named.control == "quant.bits.mlp=6,average.kind=ema"
    assert next(iter(named.labels.values())) == "small"
    assert [arm.name for arm in named.arms] == [arm.name for arm in plain.arms]  # so no trial gets another id


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"mlp=5": "x"}, "names.mlp=5: x: no such arm; use one of mlp=4, mlp=6"),
        ({"mlp=4": "mlp=6"}, "names.mlp=4: mlp=6: is the name of quant.bits.mlp=6 too"),
        ({"mlp=4": "a", "mlp=6": "a"}, "names.mlp=4: a: is the name of quant.bits.mlp=6 too"),
        ({"mlp=4": "a/b"}, "names: 'a/b': an arm's name must have no slash"),
    ],
)
def test_wrong_names(names: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        expanded(grid={"quant.bits.mlp": [4, 6]}, names=names)


def test_on_failed_seeds_is_one_of_two_words() -> None:
    text = "name: x\npreset: cpu-smoke\nseeds: [1]\narms: {a: {}}\n"
    assert Sweep.from_text(text).file.on_failed_seeds == "incomplete"
    assert Sweep.from_text(f"{text}on_failed_seeds: ignore\n").file.on_failed_seeds == "ignore"
    with pytest.raises(InputError, match="on_failed_seeds: skip: must be 'incomplete' or 'ignore'"):
        Sweep.from_text(f"{text}on_failed_seeds: skip\n")

"""Labels of arms: short, all different, and never the identity of an arm."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgray.spec.designs import grid_name
from results.loading.arm_labels import arm_labels, elided, find_arm, shortened
from trainer.presets.resolve import config_keys


def grid(axes: dict[str, list[object]]) -> list[str]:
    return [grid_name(dict(zip(axes, point, strict=True))) for point in itertools.product(*axes.values())]


@pytest.mark.parametrize(
    ("arms", "labels"),
    [
        (grid({"quant.bits.mlp": [4, 6], "average.kind": ["ema", "none"]}),
         ["mlp=4 ema", "mlp=4 average=none", "mlp=6 ema", "mlp=6 average=none"]),
        (grid({"qat.enabled": [False, True], "quant.bits.mlp": [4]}), ["qat=false", "qat=true"]),
        (grid({"qat.start.kind": ["step"], "qat.start.value": [1, 2]}), ["start.value=1", "start.value=2"]),
        (grid({"optim.warmdown.value": [0.5, 1.0], "qat.start.value": [0.5]}), ["warmdown=0.5", "warmdown=1.0"]),
        (grid({"value_embed.layers": [[9, 10], []], "model.layers": [3, 4]}),
         ["value_embed.layers=[9,10] model.layers=3", "value_embed.layers=[9,10] model.layers=4",
          "value_embed.layers=[] model.layers=3", "value_embed.layers=[] model.layers=4"]),
        (["control", "average.kind=swa", "average.kind=lawa", "optim.muon_variant=normuon"],
         ["control", "swa", "lawa", "normuon"]),
        (["int8", "int4-mlp+qat", "lr=3", "a=b,c"], ["int8", "int4-mlp+qat", "lr=3", "a=b,c"]),
        (["ema", "average.kind=ema"], ["ema", "average.kind=ema"]),  # a person has taken the label
        (["quant.bits.mlp=4"], ["mlp=4"]),
        ([], []),
    ],
)  # fmt: skip
def test_labels(arms: list[str], labels: list[str]) -> None:
    assert arm_labels(arms) == dict(zip(arms, labels, strict=True))


def test_names_of_the_sweep_replace_labels() -> None:
    arms = grid({"quant.bits.mlp": [4, 6]})
    names = {"mlp=4": "small", "quant.bits.mlp=6": "large"}
    labels = arm_labels(arms, names)
    assert list(labels.values()) == ["small", "large"]
    assert find_arm("small", labels) == find_arm("quant.bits.mlp=4", labels) == "quant.bits.mlp=4"
    assert find_arm("mlp=4", labels) is None
    assert list(arm_labels(arms, {"mlp=4": "x", "mlp=6": "x"}).values()) == arms  # never two equal labels


_VALUES = st.one_of(st.integers(-3, 3), st.booleans(), st.sampled_from(["ema", "none", "swa", "a b", "x,model.dim=3"]))


@given(st.dictionaries(st.sampled_from(list(config_keys())), st.lists(_VALUES, min_size=1, max_size=3), max_size=3))
def test_labels_are_all_different_and_not_longer(axes: dict[str, list[object]]) -> None:
    arms = list(dict.fromkeys(["base", *grid(axes)])) if axes else ["base"]
    labels = arm_labels(arms)
    assert list(labels) == arms
    assert len(set(labels.values())) == len(arms)
    assert all(len(label) <= len(arm) for arm, label in labels.items())


@given(st.lists(st.text("abc=", max_size=30), unique=True), st.integers(5, 20))
def test_shortened_texts_stay_different(texts: list[str], chars: int) -> None:
    cut = shortened(texts, chars)
    assert len(set(cut.values())) == len(texts)
    assert all(cut[text] == text for text in texts if len(text) <= chars)


def test_texts_are_cut_no_less_than_they_must_be() -> None:
    texts = ["quant.bits.mlp=4,average.kind=ema", "quant.bits.mlp=6,average.kind=ema", "a" * 40]
    assert list(shortened(texts, 16).values()) == [elided(text, n) for text, n in zip(texts, (32, 32, 16), strict=True)]

"""The model that the plan builds on the meta device agrees with the torch-free shapes."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from trainer.config import Config
from trainer.model.model import build_model
from trainer.model.shapes import num_params, parameter_shapes
from trainer.presets.resolve import build_config, load_preset, preset_names
from trainer.quant.export import store_weights
from trainer.run.preflight import describe_model, describe_or_error

MODELS: list[dict[str, Any]] = [
    {},
    {"model.deep_delta": True, "model.unet_skips": False, "model.smear_gate": False},
    {"recurrence": {"kind": "loops", "loops": 3, "lora_rank": 4}},
    {"recurrence": {"kind": "gated", "last_layers": 2, "steps": 3}},
]


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("overrides", MODELS)
def test_meta_model_equals_the_torch_free_count(preset: str, overrides: dict[str, Any]) -> None:
    config = build_config({**load_preset(preset).overrides, **overrides}, preset)
    found = describe_model(config)
    assert found["num_params"] == num_params(config)
    assert {t["name"]: tuple(t["shape"]) for t in found["tensors"]} == parameter_shapes(config)


def test_tensor_classes_equal_the_artifacts(tiny: Callable[..., Config]) -> None:
    config = tiny()
    weights = {name: p.detach() for name, p in build_model(config, "cpu").named_parameters()}
    stored = {t.name.split(".")[0]: t.tensor_class for t in store_weights(weights, config.quant)}
    assert {t["name"]: t["tensor_class"] for t in describe_model(config)["tensors"]} == stored


def test_a_model_that_cannot_be_built_gives_a_reason() -> None:
    assert "heads" in describe_or_error({"model": {"dim": 96, "heads": 7}})["error"]
    assert "MemoryError" not in describe_or_error({"model": {"layers": 400, "dim": 8192}})  # no memory is taken


def test_standard_output_is_only_json() -> None:
    command = [sys.executable, "-m", "trainer.run.preflight"]
    asked = json.dumps({"x": {"model": {"layers": 1}}})
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    assert list(json.loads(done.stdout)) == ["x"]

"""The torch-free shapes are the model's."""

from typing import Any

import pytest
import torch

from trainer.model.model import Model
from trainer.model.shapes import num_params, parameter_shapes
from trainer.presets.resolve import build_config, load_preset, preset_names

VARIANTS: list[dict[str, Any]] = [
    {},
    {"model.deep_delta": True, "model.unet_skips": False, "model.resid_mix": False, "model.smear_gate": False},
    {"recurrence": {"kind": "loops", "loops": 3, "lora_rank": 4}},
    {"recurrence": {"kind": "loops", "loops": 2}},
    {"recurrence": {"kind": "gated", "last_layers": 2, "steps": 3}},
    {"recurrence": {"kind": "partial", "layers": [1, 2]}},
    {"model.layers": 1, "model.value_embed": {"dim": 0, "layers": []}, "model.xsa_last_n": 0},
]


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("overrides", VARIANTS)
def test_shapes_are_the_models(preset: str, overrides: dict[str, Any]) -> None:
    config = build_config({**load_preset(preset).overrides, **overrides}, preset)
    with torch.device("meta"):
        model = Model(config)
    assert parameter_shapes(config) == {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert num_params(config) == sum(p.numel() for p in model.parameters())

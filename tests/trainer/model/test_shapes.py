"""The shapes that a plan counts without torch give a model whose every parameter is used."""

from typing import Any

import pytest
import torch

from trainer.model.model import Model
from trainer.model.shapes import num_params, parameter_shapes
from trainer.presets.resolve import build_config, load_preset, preset_names

SMALL = {"model.dim": 128, "model.vocab_size": 64}
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
def test_every_parameter_has_a_shape_that_the_forward_pass_uses(preset: str, overrides: dict[str, Any]) -> None:
    config = build_config({**load_preset(preset).overrides, **SMALL, **overrides}, preset)
    model, tokens = Model(config), torch.zeros(1, 8, dtype=torch.int64)
    model(tokens, tokens).mean().backward()
    used = {name: tuple(p.grad.shape) for name, p in model.named_parameters() if p.grad is not None}
    assert used == parameter_shapes(config)
    assert num_params(config) == sum(p.numel() for p in model.parameters())

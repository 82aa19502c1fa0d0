"""The torch-free shapes are the model's, and the predicted size is near the real one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainer.artifact import pack
from trainer.bundle import code_bytes
from trainer.config import Config
from trainer.model import Model, build_model
from trainer.presets.resolve import build_config, load_preset, preset_names
from trainer.quant.export import store_weights
from trainer.shapes import num_params, parameter_shapes, predicted_artifact_bytes

VARIANTS: list[dict[str, Any]] = [
    {},
    {"model.deep_delta": True, "model.unet_skips": False, "model.resid_mix": False, "model.smear_gate": False},
    {"recurrence": {"kind": "loops", "loops": 3, "lora_rank": 4}},
    {"recurrence": {"kind": "loops", "loops": 2}},
    {"recurrence": {"kind": "gated", "last_layers": 2, "steps": 3}},
    {"recurrence": {"kind": "partial", "layers": [1, 2]}},
    {"model.layers": 1, "model.value_embed": {"dim": 0, "layers": []}, "model.xsa_last_n": 0},
]

SIZE = {"model.dim": 128, "model.layers": 4, "model.rope_dims": 16}


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("overrides", VARIANTS)
def test_shapes_are_the_models(preset: str, overrides: dict[str, Any]) -> None:
    config = build_config({**load_preset(preset).overrides, **overrides}, preset)
    with torch.device("meta"):
        model = Model(config)
    assert parameter_shapes(config) == {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert num_params(config) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("codec", ["zlib", "zstd", "lzma", "ans"])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_predicted_size_is_within_five_per_cent(tiny: Callable[..., Config], codec: str, bits: int) -> None:
    classes = {f"quant.bits.{c}": bits for c in ("mlp", "attn", "embed")}
    config = tiny(**SIZE, **classes, **{"export.codec": codec, "quant.fp16_max_elements": 4096})
    assert predicted_artifact_bytes(config) == pytest.approx(_bytes_of_gaussian_weights(config), rel=0.05)


@pytest.mark.parametrize("kept", ["embed", "mlp_*", "attn_q.1", "*"])
def test_predicted_size_knows_what_stays_fp16(tiny: Callable[..., Config], kept: str) -> None:
    config = tiny(**SIZE, **{"quant.fp16_max_elements": 4096, "quant.keep_fp16": [kept]})
    assert predicted_artifact_bytes(config) == pytest.approx(_bytes_of_gaussian_weights(config), rel=0.05)


def _bytes_of_gaussian_weights(config: Config) -> int:
    """Code plus packed weights, in bytes."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(p.shape, generator=generator) if p.dim() > 1 else p.detach()
        for name, p in build_model(config, "cpu").named_parameters()
    }
    return len(pack(store_weights(weights, config.quant), config)) + code_bytes()

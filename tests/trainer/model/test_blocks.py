"""The norm, Deep Delta and gated recurrence, each against its definition."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.trainer.model.test_recurrence import tokens
from trainer.config import Config
from trainer.model.layers import rms_norm
from trainer.model.model import Model, build_model
from trainer.model.recurrence import BlockCall
from trainer.presets.resolve import build_config, load_preset


def randomized(config: Config) -> Model:
    """Return a model in which no parameter is zero."""
    model, generator = build_model(config, "cpu"), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return model


def test_the_epsilon_is_that_of_float32() -> None:
    """Embeddings start with a standard deviation of 0.005: an epsilon of 1e-6 would be 4 % of their mean square."""
    x = 1e-4 * torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    expected = x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()
    torch.testing.assert_close(rms_norm(x), expected)


def test_sp1024_11l_rotates_as_the_script_does_at_its_context_length() -> None:
    """PR 975: above 1,024 tokens its base grows by (tokens / 1024) ^ (dims / (dims - 2)), in training and evaluation."""
    config = build_config(load_preset("sp1024-11l").overrides, "sp1024-11l")
    assert config.train.seq_len == config.eval.seq_len == 2048
    base = 10_000 * (2048 / 1024) ** (16 / 14)
    torch.testing.assert_close(Model(config).inv_freq, 1 / base ** (torch.arange(0, 16, 2) / 16))


def test_deep_delta_scales_the_input_that_attention_reads(tiny: Callable[..., Config]) -> None:
    """The scale follows the mix with x0, so a plain model with the scale in `resid_mix` computes the same."""
    delta = randomized(tiny(**{"model.deep_delta": True}))
    plain = build_model(tiny(), "cpu")
    with torch.no_grad():
        source = dict(delta.named_parameters())
        for name, p in plain.named_parameters():
            p.copy_(source[name])
        before = plain(*tokens())
        plain.resid_mix.mul_(1 + delta.deep_delta[:, None])
        torch.testing.assert_close(delta(*tokens()), plain(*tokens()), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(before, plain(*tokens()), atol=1e-2)


def test_gated_recurrence_blends_after_every_block_call(tiny: Callable[..., Config]) -> None:
    """Layers 1 and 2 run twice more. Gates belong to layers, depth embeddings to calls: 4 calls, 2 gates."""
    overrides: dict[str, Any] = {"recurrence": {"kind": "gated", "last_layers": 2, "steps": 3}}
    model = randomized(tiny(**overrides))
    D = model.config.model.dim
    assert model.depth_gate.shape == (2, D, 2 * D)
    assert model.depth_gate_bias.shape == (2, D)
    assert model.depth_embed.shape == (4, D)
    plain = build_model(tiny(), "cpu")
    ids = tokens()[0]
    with torch.no_grad():
        for name, p in plain.named_parameters():
            p.copy_(dict(model.named_parameters())[name])
        x0, x = plain.embed_tokens(ids), plain.hidden(ids, True)
        for call, layer in enumerate([1, 2, 1, 2]):
            new = plain.block(x + model.depth_embed[call], x0, ids, BlockCall(layer))
            gate = gate_of(model, layer - 1, new, x)
            x = gate * new + (1 - gate) * x
        torch.testing.assert_close(model.hidden(ids, True), x, rtol=1e-5, atol=1e-5)


def gate_of(model: Model, row: int, new: Tensor, old: Tensor) -> Tensor:
    linear = torch.nn.Linear(2 * new.size(-1), new.size(-1))
    linear.weight.copy_(model.depth_gate[row])
    linear.bias.copy_(model.depth_gate_bias[row])
    return torch.sigmoid(linear(torch.cat((new, old), dim=-1)))

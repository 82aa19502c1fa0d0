"""Initial weights have the distributions of the published scripts: `uniform` (baseline), `orthogonal` (PRs 488 to 1032)."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.config import Config
from trainer.model.model import Model, build_model
from trainer.presets.resolve import build_config, load_preset

WIDE: dict[str, Any] = {
    "model": {"dim": 64, "bigram": {"buckets": 256, "dim": 48}, "value_embed": {"dim": 48, "layers": [2]}},
    "recurrence": {"kind": "gated", "last_layers": 2, "steps": 2},
}
ZERO = ("attn_o", "mlp_down", "bigram_table", "depth_embed", "smear_gate")
DRAWN = ("attn_q", "attn_k", "attn_v", "mlp_up", "bigram_proj", "value_embed_proj", "depth_gate")


def built(tiny: Callable[..., Config], **overrides: Any) -> Model:
    return build_model(tiny(**{**WIDE, **overrides}), "cpu")


def matrices(model: Model, name: str) -> list[Tensor]:
    w = getattr(model, name).detach()
    return list(w) if w.dim() == 3 else [w]


@pytest.mark.parametrize("init", ["uniform", "orthogonal"])
def test_what_both_kinds_share(tiny: Callable[..., Config], init: str) -> None:
    model = built(tiny, **{"model.init": init})
    for name in ZERO:
        assert not getattr(model, name).any(), name
    assert float(model.value_embed_table.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert float(model.embed.detach().std()) == pytest.approx(0.005, rel=0.05)
    assert [model.bigram_scale.item(), model.value_embed_scale.item()] == pytest.approx([0.05, 0.1])
    assert (model.depth_gate_bias == -2).all()
    other = built(tiny, **{"model.init": init, "seed": 2})
    assert torch.equal(model.attn_q, built(tiny, **{"model.init": init}).attn_q)
    assert not torch.equal(model.attn_q, other.attn_q)


def test_uniform_is_the_default_of_torch_linear(tiny: Callable[..., Config]) -> None:
    """Uniform between -1/sqrt(in) and 1/sqrt(in): the first four moments and the range."""
    model = built(tiny, **{"model.init": "uniform"})
    for name in DRAWN:
        for w in matrices(model, name):
            bound = 1 / math.sqrt(w.size(1))
            assert 0.97 * bound < float(w.abs().max()) <= bound, name
            tolerance = 4 / math.sqrt(w.numel())
            for power, moment in ((1, 0.0), (2, 1 / 3), (3, 0.0), (4, 1 / 5)):
                assert float((w / bound).pow(power).mean()) == pytest.approx(moment, abs=tolerance), (name, power)
    first, second = model.attn_q.detach()[:2]
    assert abs(float(torch.corrcoef(torch.stack((first.flatten(), second.flatten())))[0, 1])) < 0.07


def test_orthogonal_has_orthonormal_rows_or_columns(tiny: Callable[..., Config]) -> None:
    """Gain 1 everywhere: PRs 975 and 1032 do not scale the projections of the side embeddings (488 and 1002 do)."""
    model = built(tiny, **{"model.init": "orthogonal"})
    for name in DRAWN:
        for w in matrices(model, name):
            gram = w @ w.T if w.size(0) <= w.size(1) else w.T @ w
            torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5, msg=name)
    first, second = model.attn_q.detach()[:2]
    assert not torch.allclose(first, second, atol=0.01)


@pytest.mark.parametrize(
    ("preset", "init"), [("sp1024-9l", "uniform"), ("sp1024-11l", "orthogonal"), ("cpu-smoke", "orthogonal")]
)
def test_each_preset_says_its_init(preset: str, init: str) -> None:
    overrides = load_preset(preset).overrides
    assert overrides["model.init"] == init
    assert build_config(overrides, preset).model.init == init

"""Quant-Noise rounds the configured share of the weights, drawn again at each step, and leaves the rest unchanged."""

from collections.abc import Callable

import pytest
import torch

from trainer.config import Config
from trainer.model.model import build_model
from trainer.optim.schedule import TrainProgress
from trainer.optim.weights import Weights
from trainer.quant.fake_quant import fake_quantize
from trainer.run.dist import DistContext


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_share_is_rounded_and_the_rest_unchanged(
    tiny: Callable[..., Config], alone: DistContext, share: float
) -> None:
    config = tiny(**{"quant_noise.share": share, "quant.bits.attn": 4})
    weights = Weights(build_model(config, "cpu"), config, alone)
    master = weights.master["attn_q"]
    rounded = fake_quantize(master, weights.plans["attn_q"])
    draws = []
    for _ in range(2):
        weights.write({"quant_noise": share})
        compute = weights.compute["attn_q"].detach().clone()
        is_rounded = compute == rounded
        assert bool((is_rounded | (compute == master)).all())
        assert float(is_rounded.float().mean()) == pytest.approx(share, abs=0.03)
        draws.append(is_rounded)
    assert torch.equal(*draws) == (share == 1.0)


def test_it_ends_when_qat_begins(tiny: Callable[..., Config], alone: DistContext) -> None:
    config = tiny(**{"quant_noise.share": 0.5, "qat.enabled": True})
    weights = Weights(build_model(config, "cpu"), config, alone)
    now = TrainProgress(0, 0.0, 0.0, 1.0)
    assert weights.gates(now, is_qat=False) == {"quant_noise": 0.5, "qat": 0.0}
    assert weights.gates(now, is_qat=True) == {"quant_noise": 0.0, "qat": 1.0}

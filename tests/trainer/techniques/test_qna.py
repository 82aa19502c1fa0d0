"""Quantization noise: uniform, of half a step, independent per rank, off under QAT and in evaluation."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy import stats

from tests.trainer.conftest import job_of
from trainer.config import Config
from trainer.model.model import build_model
from trainer.optim.weights import Weights, noise_generator
from trainer.pipeline import run_job
from trainer.quant.quantizer import Scheme
from trainer.quant.tensor_plan import TensorPlan
from trainer.records.events import read_events
from trainer.records.layout import RunLayout
from trainer.run.dist import DistContext
from trainer.techniques.qna import add_quantization_noise

CPU = torch.device("cpu")


def plan(shape: tuple[int, ...], bits: int, group_rows: int = 1, flags: tuple[bool, ...] | None = None) -> TensorPlan:
    return TensorPlan("w", "mlp", True, shape, Scheme(bits, group_rows), flags or (True,) * shape[0])


@pytest.mark.parametrize(("bits", "group_rows"), [(6, 1), (4, 8)])
def test_noise_is_uniform_with_the_stated_half_step(bits: int, group_rows: int) -> None:
    w = torch.randn(2, 64, 256, generator=torch.Generator().manual_seed(0))
    noisy = add_quantization_noise(w, plan((2, 64, 256), bits, group_rows), 0.5, noise_generator(1, 0, CPU))
    q_max = 2 ** (bits - 1) - 1
    group_max = w.abs().view(2, 64 // group_rows, -1).amax(-1).repeat_interleave(group_rows, dim=1)
    unit = (noisy - w) / (group_max / (2 * q_max))[..., None] / 0.5
    assert float(unit.abs().max()) <= 1.0001
    assert stats.kstest(unit.flatten()[::7].numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.001
    # at magnitude 1 it is as large as the rounding error that it imitates: step / sqrt(12)
    rounding = (noisy - w).std() / 0.5
    assert float(rounding) == pytest.approx(float((group_max / q_max).square().mean().sqrt()) / 12**0.5, rel=0.02)


def test_ranks_draw_their_own_noise_and_a_seed_repeats_it() -> None:
    w = torch.randn(1, 8, 512)

    def draw(seed: int, rank: int) -> torch.Tensor:
        return add_quantization_noise(w, plan((1, 8, 512), 6), 1.0, noise_generator(seed, rank, CPU)) - w

    assert torch.equal(draw(1, 0), draw(1, 0))
    for other in (draw(1, 1), draw(2, 0)):
        assert abs(float(torch.corrcoef(torch.stack((draw(1, 0).flatten(), other.flatten())))[0, 1])) < 0.06


def test_layers_kept_in_fp16_get_no_noise() -> None:
    w = torch.randn(2, 4, 8)
    noisy = add_quantization_noise(w, plan((2, 4, 8), 6, flags=(True, False)), 1.0, noise_generator(0, 0, CPU))
    assert torch.equal(noisy[1], w[1])
    assert not torch.equal(noisy[0], w[0])


def test_only_exported_integers_get_noise_and_the_master_is_untouched(
    tiny: Callable[..., Config], alone: DistContext
) -> None:
    config = tiny(**{"qna.magnitude": 1.0, "quant.bits.attn": 16})
    weights = Weights(build_model(config, "cpu"), config, alone)
    before = weights.snapshot()
    weights.write({"qna": 1.0})
    assert all(torch.equal(weights.master[n], before[n]) for n in before)
    changed = {n for n, p in weights.compute.items() if not torch.equal(p.detach(), before[n])}
    expected = {n for n, p in weights.plans.items() if p.scheme is not None}
    assert changed == expected - {n for n in expected if not before[n].any()}  # a zero matrix has a zero half-step


def test_noise_follows_the_learning_rate_and_ends_with_qat(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    config = tiny(**{"qna.magnitude": 0.5, "qat.enabled": True, "qat.start": {"kind": "step", "value": 9}})
    run_job(job_of(config), tmp_path, alone)
    steps = [e for e in read_events(RunLayout(tmp_path).trained("f").events) if e["event"] == "step"]
    assert len(steps) == 12
    for e in steps:
        is_qat = e["step"] > 9  # the event follows the step
        assert e["qat_gate"] == int(is_qat)
        assert e["qna_gate"] == pytest.approx(0.0 if is_qat else 0.5 * e["lr_scale"])


def test_noise_changes_training_but_never_evaluation(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    """Weights trained with noise have the same score twice; noise changes training."""
    noisy, plain = tiny(**{"qna.magnitude": 1.0, "quant.bits.mlp": 3}), tiny(**{"quant.bits.mlp": 3})
    (a,) = run_job(job_of(noisy), tmp_path / "noisy", alone)
    (b,) = run_job(job_of(plain), tmp_path / "plain", alone)
    assert a.float_bpb != b.float_bpb
    RunLayout(tmp_path / "noisy").trial("trial0").result.unlink()
    (again,) = run_job(job_of(noisy), tmp_path / "noisy", alone)
    assert (again.float_bpb, again.post_quant_bpb, again.sliding_bpb) == (a.float_bpb, a.post_quant_bpb, a.sliding_bpb)

"""The quantizer: QAT trains what export writes, bit for bit; errors are bounded; edge cases."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import Config
from trainer.model.model import build_model
from trainer.model.shapes import parameter_shapes
from trainer.optim.weights import QAT_ONLY, Weights
from trainer.presets.resolve import build_config, load_preset
from trainer.quant.artifact import pack, unpack
from trainer.quant.config import QuantConfig
from trainer.quant.export import assemble, prune, store_weights, svd_factors
from trainer.quant.quantizer import SEARCH_PERCENTILES, Scheme, quantize
from trainer.quant.tensor_plan import plan_tensors, shapes_of
from trainer.run.dist import DistContext

CLIPS = ("absmax", "search", "sigma", "percentile")


@pytest.mark.parametrize(
    ("bits", "group_rows", "clip"), list(itertools.product((2, 3, 4, 5, 6, 7, 8), (1, 3, 8), CLIPS))
)
def test_qat_trains_what_export_writes(
    tiny: Callable[..., Config], alone: DistContext, bits: int, group_rows: int, clip: str
) -> None:
    classes = ("mlp", "attn", "embed", "bigram", "value_embed", "other")
    overrides = {f"quant.bits.{c}": bits for c in classes}
    config = tiny(**overrides, **{"quant.group_rows": group_rows, "quant.clip": clip, "qat.enabled": True})
    model = build_model(config, "cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(bits)))
    weights = Weights(model, config, alone)
    weights.write(QAT_ONLY)
    unpacked = unpack(pack(store_weights(weights.master, config.quant), config)).weights
    plans = plan_tensors(shapes_of(weights.master), config.quant)
    compared = 0
    for name, plan in plans.items():
        if plan.scheme is not None:
            assert torch.equal(weights.compute[name].detach(), unpacked[name]), name
            compared += plan.int_elements
    assert compared > 0.9 * sum(w.numel() for w in weights.master.values())


def test_qat_does_not_change_fp16_and_control_tensors(tiny: Callable[..., Config], alone: DistContext) -> None:
    config = tiny(**{"qat.enabled": True, "quant.bits.attn": 16, "quant.keep_fp16": ["mlp_up.1", "embed"]})
    weights = Weights(build_model(config, "cpu"), config, alone)
    weights.write(QAT_ONLY)
    for name in ("attn_q", "embed", "q_gain", "attn_scale"):
        assert torch.equal(weights.compute[name].detach(), weights.master[name]), name
    assert torch.equal(weights.compute["mlp_up"][1].detach(), weights.master["mlp_up"][1])
    assert not torch.equal(weights.compute["mlp_up"][0].detach(), weights.master["mlp_up"][0])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 17)),
    bits=st.integers(2, 8),
    group_rows=st.integers(1, 10),
)
def test_absmax_error_is_within_half_a_step(seed: int, shape: tuple[int, int, int], bits: int, group_rows: int) -> None:
    w = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    quantized = quantize(w, Scheme(bits, group_rows))
    q_max = 2 ** (bits - 1) - 1
    assert int(quantized.q_LOI.abs().max()) <= q_max
    step = quantized.scale_LG.float().repeat_interleave(group_rows, dim=1)[:, : shape[1], None]
    # the scale is rounded to fp16, so the largest value may miss its level by q_max * scale * 2^-11 more
    assert bool(((w - quantized.dequantize()).abs() <= step * (0.5 + q_max * 2**-10)).all())
    assert torch.equal(quantize(w, Scheme(bits, group_rows)).q_LOI, quantized.q_LOI)


def test_percentile_clips_as_the_baseline_does() -> None:
    """torch.quantile of each row's magnitudes, then int8: the baseline's `quantize_float_tensor`, without its floor."""
    w = torch.randn(3, 8, 1000, generator=torch.Generator().manual_seed(0)) ** 3
    quantized = quantize(w, Scheme(8, clip="percentile", clip_percentile=99.99984))
    clip = torch.quantile(w.abs(), 0.9999984, dim=-1)
    assert bool((clip < w.abs().amax(-1)).all())
    torch.testing.assert_close(quantized.scale_LG.float(), (clip / 127).half().float(), rtol=1e-3, atol=0)
    lower = quantize(w, Scheme(8, clip="percentile", clip_percentile=99.0))
    torch.testing.assert_close(lower.scale_LG.float(), torch.quantile(w.abs(), 0.99, dim=-1) / 127, rtol=1e-3, atol=0)
    assert (lower.q_LOI == 127).any()


def test_8_bit_tensors_have_a_clip_of_their_own(tiny: Callable[..., Config]) -> None:
    """In PRs 975 and 1032 int6 tensors are searched and int8 tensors clipped at a fixed percentile."""
    config = tiny(**{"quant": {"bits": {"mlp": 6}, "clip": "search", "int8_clip": "percentile"}})
    schemes = {name: plan.scheme for name, plan in plan_tensors(parameter_shapes(config), config.quant).items()}
    clips = {name: scheme.clip for name, scheme in schemes.items() if scheme is not None}
    assert (clips["mlp_up"], clips["embed"], clips["attn_q"]) == ("search", "percentile", "percentile")
    same = tiny(**{"quant.clip": "search"})
    plans = plan_tensors(parameter_shapes(same), same.quant).values()
    assert {plan.scheme.clip for plan in plans if plan.scheme} == {"search"}


@pytest.mark.parametrize("preset", ["sp1024-9l", "sp1024-11l", "cpu-smoke"])
def test_presets_clip_8_bit_tensors_at_the_published_percentile(preset: str) -> None:
    config = build_config(load_preset(preset).overrides, preset)
    plans = plan_tensors(parameter_shapes(config), config.quant).values()
    schemes = [plan.scheme for plan in plans if plan.scheme and plan.scheme.bits == 8]
    assert {(scheme.clip, scheme.clip_percentile) for scheme in schemes} == {("percentile", 99.99984)}


def test_search_is_the_best_of_its_percentiles_and_equals_a_sorted_reference() -> None:
    w = torch.randn(1, 6, 3000, generator=torch.Generator().manual_seed(0)) ** 3  # heavy tails: clipping pays
    scheme = Scheme(4, clip="search")
    errors = []
    for percentile in SEARCH_PERCENTILES:
        clip = torch.quantile(w.abs(), percentile, dim=-1)
        scale = (clip / scheme.q_max).half().float()[..., None]
        q = (w / scale).round().clamp(-scheme.q_max, scheme.q_max)
        errors.append((q * scale - w).square().sum(-1))
    best = torch.stack(errors).min(0).values
    found = (quantize(w, scheme).dequantize() - w).square().sum(-1)
    torch.testing.assert_close(found, best, rtol=2e-3, atol=0)
    assert bool((found < (quantize(w, Scheme(4)).dequantize() - w).square().sum(-1)).all())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40, 1001])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_search_chooses_the_scale_of_a_percentile_of_the_sorted_magnitudes(size: int, bits: int) -> None:
    """Reference: each percentile by linear interpolation between its two neighbours, of all values sorted, in float64."""
    scheme = Scheme(bits, clip="search")
    w = torch.randn(1, 5, size, generator=torch.Generator().manual_seed(size)) ** 3
    found = quantize(w, scheme).scale_LG[0].float()
    for row, scale in zip(w[0], found, strict=True):
        magnitudes = np.sort(row.double().abs().numpy())
        candidates = []
        for percentile in SEARCH_PERCENTILES:
            position = percentile * (size - 1)
            lower, upper = math.floor(position), math.ceil(position)
            clip = magnitudes[lower] + (position - lower) * (magnitudes[upper] - magnitudes[lower])
            step = float(np.float16(np.float32(clip / scheme.q_max)))
            q = np.clip(np.round(row.double().numpy() / step), -scheme.q_max, scheme.q_max)
            candidates.append((float(((q * step - row.double().numpy()) ** 2).sum()), step))
        least = min(error for error, _ in candidates)
        allowed = [step for error, step in candidates if error <= least * (1 + 1e-4) + 1e-12]
        assert any(abs(float(scale) - step) <= 1e-3 * step for step in allowed), (size, float(scale), candidates)


def test_sigma_clips_at_k_standard_deviations() -> None:
    w = torch.randn(2, 4, 512, generator=torch.Generator().manual_seed(1))
    scale = quantize(w, Scheme(6, clip="sigma", clip_sigma=2.5)).scale_LG.float()
    expected = 2.5 * w.std(-1, correction=0) / 31
    torch.testing.assert_close(scale, expected, rtol=1e-3, atol=0)


def test_a_zero_matrix_stays_zero_and_tiny_weights_keep_a_usable_scale() -> None:
    zero = quantize(torch.zeros(1, 3, 5), Scheme(4))
    assert torch.equal(zero.dequantize(), torch.zeros(1, 3, 5))
    assert torch.equal(zero.scale_LG, torch.ones(1, 3, dtype=torch.float16))
    tiny = quantize(torch.full((1, 1, 4), 1e-9), Scheme(8))
    assert torch.isfinite(tiny.dequantize()).all()


def test_the_published_scale_floor_collapses_small_weights() -> None:
    """PR 1032, issue 775: a floor of 1/31 on every scale turns weights of size 0.003 into zeros."""
    w = 0.003 * torch.randn(1, 8, 64, generator=torch.Generator().manual_seed(0))
    assert not quantize(w, Scheme(6, scale_floor=1 / 31)).q_LOI.any()
    assert quantize(w, Scheme(6)).q_LOI.any()


@pytest.mark.parametrize("bad", [torch.zeros(3, 4), torch.zeros(2)])
def test_wrong_shape_is_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="layers, out, in"):
        quantize(bad, Scheme(4))


def test_prune_zeroes_the_smallest_first_and_zero_changes_nothing() -> None:
    w = torch.randn(8, 16, generator=torch.Generator().manual_seed(3))
    assert torch.equal(prune(w, 0.0), w)
    pruned = prune(w, 0.25)
    gone = pruned == 0
    assert int(gone.sum()) == 32
    assert float(w[gone].abs().max()) <= float(w[~gone].abs().min())
    assert torch.equal(pruned[~gone], w[~gone])


def test_svd_at_full_rank_changes_nothing_and_low_rank_is_stored_as_factors(tiny: Callable[..., Config]) -> None:
    weights = {name: p.detach() for name, p in build_model(tiny(), "cpu").named_parameters()}
    quant = tiny().quant
    plain = assemble(store_weights(weights, quant))
    full = assemble(store_weights(weights, QuantConfig(**{**quant.model_dump(), "svd_rank": 32})))
    assert all(torch.equal(plain[n], full[n]) for n in plain)
    low = store_weights(weights, QuantConfig(**{**quant.model_dump(), "svd_rank": 4}))
    by_name = {t.name: t for t in low}
    assert by_name["mlp_up.0"].stored_as == "svd"
    assert by_name["mlp_up.0"].dequantize().shape == (96, 32)
    left, right = svd_factors(weights["mlp_up"][0], 32)
    torch.testing.assert_close(left @ right, weights["mlp_up"][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", ["sp1024-9l", "sp1024-11l"])
def test_the_presets_export_with_the_floors_of_the_published_scripts(preset: str) -> None:
    """Every row's clip value is at least 1: the scales have a floor of 1/31 at int6 and of 1/127 at int8."""
    config = build_config(load_preset(preset).overrides, "test")
    plans = plan_tensors(parameter_shapes(config), config.quant).values()
    floors = {plan.scheme.bits: plan.scheme.scale_floor for plan in plans if plan.scheme}
    assert floors == ({8: 1 / 127} if preset == "sp1024-9l" else {6: 1 / 31, 8: 1 / 127})
    for plan in plans:
        if plan.scheme:
            w = 0.01 * torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(0))
            assert (quantize(w, plan.scheme).scale_LG == torch.tensor(1 / plan.scheme.q_max).half()).all()
            assert quantize(100 * w, plan.scheme).scale_LG.min() > 1.5 / plan.scheme.q_max


def test_a_floor_of_the_clip_value_and_of_the_scale() -> None:
    def floor(**quant: Any) -> float | None:
        config = build_config({**load_preset("sp1024-11l").overrides, **quant}, "test")
        scheme = plan_tensors(parameter_shapes(config), config.quant)["mlp_up"].scheme
        assert scheme is not None
        return scheme.scale_floor

    assert floor(**{"quant.clip_floor": None}) is None
    assert floor(**{"quant.clip_floor": None, "quant.scale_floor": 0.01}) == 0.01
    assert floor(**{"quant.clip_floor": 0.5, "quant.scale_floor": 0.01}) == 0.5 / 31
    assert floor(**{"quant.clip_floor": 0.5, "quant.scale_floor": 0.1}) == 0.1

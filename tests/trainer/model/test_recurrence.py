"""Depth recurrence: order of blocks; zero adapters and closed gates give the plain model; every parameter is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import job_of
from trainer.config import Config
from trainer.errors import InputError
from trainer.model.model import Model, build_model
from trainer.model.recurrence import block_calls
from trainer.optim.optimizer import Optimizer, group_parameters
from trainer.optim.schedule import TrainProgress
from trainer.pipeline import run_job
from trainer.records.events import read_events
from trainer.records.layout import RunLayout
from trainer.run.dist import DistContext

KINDS: dict[str, dict[str, Any]] = {
    "loops": {"recurrence.kind": "loops", "recurrence.loops": 3, "recurrence.lora_rank": 4},
    "gated": {"recurrence.kind": "gated", "recurrence.last_layers": 2, "recurrence.steps": 3},
    "partial": {
        "recurrence.kind": "partial",
        "recurrence.layers": [1, 2],
        "recurrence.start": {"kind": "step", "value": 6},
    },
}


def perturbed(config: Config, seed: int = 0) -> Model:
    """Return a model with changed parameters, so that none is zero by accident."""
    model = build_model(config, "cpu")
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if not name.startswith(("lora", "depth")):
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed + len(name))))
    return model


def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    block = torch.randint(0, 400, (2, 33), generator=torch.Generator().manual_seed(1))
    return block[:, :-1], block[:, 1:]


def test_loops_are_passes_times_layers_with_skips_over_virtual_layers(tiny: Callable[..., Config]) -> None:
    calls = block_calls(tiny(**{"model.layers": 4, "model.value_embed.layers": [3], **KINDS["loops"]}), True)
    assert [(c.pass_index, c.layer) for c in calls] == [(n, layer) for n in range(3) for layer in range(4)]
    assert Model(tiny(**{"model.layers": 4, "model.value_embed.layers": [3], **KINDS["loops"]})).num_skips == 6


def test_loops_with_zero_lora_equal_a_plain_model_with_repeated_layers(tiny: Callable[..., Config]) -> None:
    """The reference has 9 real layers: the 3 of the looped model, three times."""
    overrides = {
        "model.ln_scale": False,
        "model.xsa_last_n": 0,
        "model.value_embed.layers": [],
        "model.value_embed.dim": 0,
    }
    looped = perturbed(tiny(**{**overrides, **KINDS["loops"]}))
    plain = build_model(tiny(**{**overrides, "model.layers": 9}), "cpu")
    source = dict(looped.named_parameters())
    with torch.no_grad():
        for name, p in plain.named_parameters():
            is_per_layer = p.size(0) == 9 and source[name].size(0) == 3
            p.copy_(torch.cat([source[name]] * 3) if is_per_layer else source[name])
        torch.testing.assert_close(looped(*tokens()), plain(*tokens()), rtol=1e-5, atol=1e-5)
        looped.lora_q_up.normal_(generator=torch.Generator().manual_seed(0))
        assert not torch.allclose(looped(*tokens()), plain(*tokens()), atol=1e-3)


def test_lora_has_no_effect_at_first(tiny: Callable[..., Config]) -> None:
    model = build_model(tiny(**KINDS["loops"]), "cpu")
    assert not model.lora_q_up.any()
    assert not model.lora_v_up.any()
    assert float(model.lora_q_down.detach().std()) == pytest.approx(1 / 4, rel=0.1)


def test_gated_with_closed_gates_is_the_plain_model(tiny: Callable[..., Config]) -> None:
    gated, plain = perturbed(tiny(**KINDS["gated"])), perturbed(tiny())
    with torch.no_grad():
        opened = gated(*tokens())
        gated.depth_gate_bias.fill_(-1e4)  # z = 0
        torch.testing.assert_close(gated(*tokens()), plain(*tokens()), rtol=0, atol=0)
        assert not torch.allclose(opened, plain(*tokens()), atol=1e-4)


def test_partial_runs_its_layers_twice_only_when_looped(tiny: Callable[..., Config]) -> None:
    config = tiny(**KINDS["partial"])
    assert [c.layer for c in block_calls(config, False)] == [0, 1, 2]
    assert [c.layer for c in block_calls(config, True)] == [0, 1, 2, 1, 2]
    partial, plain = perturbed(config), perturbed(tiny())
    with torch.no_grad():
        assert torch.equal(partial(*tokens(), is_looped=False), plain(*tokens()))
        assert not torch.allclose(partial(*tokens(), is_looped=True), plain(*tokens()), atol=1e-4)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_parameter_is_grouped_once_and_moves(tiny: Callable[..., Config], alone: DistContext, kind: str) -> None:
    """PR 1032's gate and depth embeddings were in no optimizer."""
    config = tiny(**KINDS[kind])
    model = build_model(config, "cpu")
    groups = group_parameters(dict(model.named_parameters()))
    assert sorted([*groups.muon, *groups.embed, *groups.scalar]) == sorted(n for n, _ in model.named_parameters())
    master = {n: p.detach().clone() for n, p in model.named_parameters()}
    initial = {n: w.clone() for n, w in master.items()}
    optimizer = Optimizer(master, config, alone)
    for step in range(4):
        model.zero_grad()
        model(*tokens()).mean().backward()
        optimizer.step(dict(model.named_parameters()), TrainProgress(step, 0.0, 0.0, 1.0))
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(master[name])
    assert [n for n in master if torch.equal(master[n], initial[n])] == []


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_pipeline_handles_shared_and_adapter_weights(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext, kind: str
) -> None:
    overrides = {"qat.enabled": True, "qat.start": {"kind": "step", "value": 8}, "quant.fp16_max_elements": 0}
    config = tiny(**{**KINDS[kind], **overrides, "average.kind": "ema", "qna.magnitude": 1.0, "eval.antilayer": True})
    (r,) = run_job(job_of(config), tmp_path, alone)
    assert r.qat_is_live is True
    assert r.qat_coverage == 1.0
    stored = {t.name.split(".")[0]: t.stored_as for t in r.tensors}
    assert all(stored[n] == "int" for n in stored if n.startswith("lora") or n == "depth_gate")
    assert r.antilayer is not None
    assert len(r.antilayer) == 3
    assert all(row["delta_bpb"] == pytest.approx(row["bpb_without"] - r.post_quant_bpb) for row in r.antilayer)
    gates = [e for e in read_events(RunLayout(tmp_path).trained("f").events) if e.get("gate") == "recurrence"]
    assert [e["step"] for e in gates] == ([6] if kind == "partial" else [])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"recurrence.kind": "loops", "recurrence.loops": 1}, "recurrence.loops: 1: must be at least 2"),
        ({"recurrence.kind": "gated", "recurrence.steps": 3}, "needs last_layers"),
        ({"recurrence.kind": "partial", "recurrence.layers": [7]}, r"recurrence.layers: \[7\]: must be within 0..2"),
        ({"recurrence.kind": "none", "recurrence.loops": 3}, "has no effect for recurrence.kind none"),
        ({"recurrence.loops": 3}, "has no effect for recurrence.kind none"),
    ],
)
def test_settings_without_effect_are_refused(
    tiny: Callable[..., Config], overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tiny(**overrides)

"""Regression tests of defects found in a review: stale files, partial overrides, averages that never began, graphs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import job_of
from trainer.averaging.base import build_average
from trainer.config import Config
from trainer.errors import DivergedError, InputError
from trainer.evaluation.diagnostics import QatCheck
from trainer.evaluation.scoring import CompiledModel
from trainer.model.model import build_model
from trainer.optim.optimizer import Optimizer
from trainer.optim.weights import Weights
from trainer.pipeline import run_job
from trainer.records.fingerprint import average_key
from trainer.records.job import load_job
from trainer.records.layout import RunLayout
from trainer.records.results import TrainingRecord
from trainer.run.checkpoint import Checkpoint, TrainState
from trainer.run.dist import DistContext


@pytest.mark.parametrize(
    "recurrence",
    [
        {},
        {"kind": "loops", "loops": 2, "lora_rank": 2},
        {"kind": "gated", "last_layers": 1, "steps": 2},
        {"kind": "partial", "layers": [1]},
    ],
)
def test_the_model_is_one_graph_under_bf16(tiny: Callable[..., Config], recurrence: dict[str, Any]) -> None:
    """What CUDA does by default, without its code generator: fullgraph tracing and bf16 autocast, forward and backward."""
    model = build_model(tiny(**{f"recurrence.{k}": v for k, v in recurrence.items()}), "cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    tokens = torch.randint(0, 400, (2, 33), generator=torch.Generator().manual_seed(1))
    a, b = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    torch.compiler.reset()
    traced = torch.compile(model, dynamic=False, fullgraph=True, backend="eager")
    for is_looped in (False, True) if recurrence.get("kind") == "partial" else (True,):
        eager = CompiledModel(model, "cpu", True, is_looped)(a, b)
        compiled = CompiledModel(traced, "cpu", True, is_looped)(a, b)
        compiled.mean().backward()  # type: ignore[no-untyped-call]
        assert compiled.dtype == torch.float32
        torch.testing.assert_close(compiled, eager, rtol=0, atol=2e-2)
    exact = CompiledModel(model, "cpu", False)(a, b)
    torch.testing.assert_close(compiled, exact, rtol=0, atol=5e-2)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_retraining_deletes_the_averages_of_the_previous_run(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    ema, swa = tiny(**{"average.kind": "ema"}), tiny(**{"average.kind": "swa", "average.count": 2})
    run_job(job_of(ema), tmp_path, alone)
    layout = RunLayout(tmp_path)
    first = layout.trained("f").weights(average_key(ema))
    assert first.is_file()
    layout.trial("trial0").result.unlink()
    run_job(job_of(swa), tmp_path, alone)  # trains again, since swa was not kept
    assert not first.exists()
    record = TrainingRecord.model_validate_json(layout.trained("f").record.read_text())
    assert {a.key for a in record.averages} == {average_key(swa), "last"}


@pytest.mark.parametrize("overrides", [{"qat.scope": ["mlp"]}, {"quant.keep_fp16": ["embed"]}, {"qat.scope": ["attn"]}])
def test_qat_from_the_first_step_counts_as_live(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext, overrides: dict[str, Any]
) -> None:
    """Output projections start at zero, so rounding the MLP cannot change the first loss; the check is repeated."""
    config = tiny(**{"qat.enabled": True, "qat.start": {"kind": "immediately", "value": 0}, **overrides})
    (r,) = run_job(job_of(config), tmp_path, alone)
    assert r.qat_is_live is True
    assert r.qat_on_step == 0


def test_the_ids_of_a_short_job_depend_on_its_content(tmp_path: Path) -> None:
    jobs = []
    for iterations in (3, 4, 3):
        path = tmp_path / "job.yaml"
        path.write_text(f"preset: cpu-smoke\nset: {{train.iterations: {iterations}}}\n")
        jobs.append(load_job(path))
    assert jobs[0] == jobs[2]
    assert jobs[0].job_id != jobs[1].job_id
    assert jobs[0].train_fingerprint != jobs[1].train_fingerprint
    assert jobs[0].trials[0].trial_id != jobs[1].trials[0].trial_id


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"qat.start.value": 0.3}, "qat.start.value: 0.3: kind immediately takes no value"),
        ({"qat.start.kind": "wallclock_frac"}, "qat.start.value: 0.0: must be above 0"),
        ({"qat.start.kind": "lr_scale"}, "qat.start.value"),
        ({"average.kind": "swa"}, "average.count: 0: swa needs count"),
        ({"average.kind": "lawa", "average.every": 5}, "average.count: 0: lawa with every needs count"),
    ],
)
def test_incomplete_overrides_are_refused(tiny: Callable[..., Config], overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny(**overrides)


def test_a_pattern_that_matches_nothing_is_refused(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    with pytest.raises(InputError, match=r"keep_fp16: tok_emb\*: matches no tensor"):
        run_job(job_of(tiny(**{"quant.keep_fp16": ["tok_emb*"]})), tmp_path, alone)
    assert not (tmp_path / "trained").exists()


def test_the_result_notes_an_average_that_never_began(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    (r,) = run_job(job_of(tiny(**{"average.kind": "ema", "average.start": "qat"})), tmp_path, alone)
    assert any("never began" in note for note in r.notes)
    assert r.float_bpb == r.raw_bpb


def test_divergence_is_found_in_validation_and_after_the_last_step(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    wild = {"optim.embed_lr": 1e30, "optim.scalar_lr": 1e30, "train.grad_clip": 0, "train.log_every": 1000}
    for name, overrides in (("val", {"train.val_every": 2}), ("end", {"train.iterations": 2})):
        with pytest.raises(DivergedError):
            run_job(job_of(tiny(**wild, **overrides)), tmp_path / name, alone)


def test_a_run_killed_after_its_last_step_can_finish(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    config = tiny(**{"train.iterations": 5, "eval.stride": 0})
    (whole,) = run_job(job_of(config), tmp_path / "whole", alone)
    weights = Weights(build_model(config, "cpu"), config, alone)
    trained = torch_load(tmp_path / "whole/trained/f/last.safetensors")
    weights.load(trained)
    optimizer = Optimizer(weights.master, config, alone)
    folder = RunLayout(tmp_path / "cut").trained("f").checkpoint
    averages = [build_average(config, weights.master)]
    Checkpoint(folder, alone).save(TrainState(5, 1.0, None), weights, optimizer, averages)
    (resumed,) = run_job(job_of(config), tmp_path / "cut", alone)
    assert resumed.post_quant_bpb == whole.post_quant_bpb


def torch_load(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(path))


@pytest.mark.parametrize("qat", [None, QatCheck(True, 0.5, "no effect on the loss yet", is_final=False)])
def test_a_checkpoint_keeps_all_fields_of_the_qat_check(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext, qat: QatCheck | None
) -> None:
    """A check that must be repeated after the next update must also be repeated after a resume."""
    config = tiny()
    weights = Weights(build_model(config, "cpu"), config, alone)
    optimizer = Optimizer(weights.master, config, alone)
    state = TrainState(2, 1.0, 0 if qat else None, qat)
    Checkpoint(tmp_path, alone).save(state, weights, optimizer, [])
    assert Checkpoint(tmp_path, alone).load(weights, optimizer, []) == state


@pytest.mark.parametrize("damage", ["latest", "common", "averages"])
def test_a_checkpoint_that_does_not_fit_is_not_loaded(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext, damage: str
) -> None:
    config = tiny()
    weights = Weights(build_model(config, "cpu"), config, alone)
    optimizer = Optimizer(weights.master, config, alone)
    checkpoint = Checkpoint(tmp_path, alone)
    average = build_average(tiny(**{"average.kind": "lawa", "average.every": 2, "average.count": 3}), weights.master)
    checkpoint.save(TrainState(5, 1.0, None), weights, optimizer, [build_average(config, weights.master)])
    assert checkpoint.load(weights, optimizer, [build_average(config, weights.master)]) is not None
    if damage == "latest":
        (tmp_path / "latest.json").write_text(json.dumps({"folder": "step-5"}))
    if damage == "common":
        (tmp_path / "step-5/common.safetensors").write_bytes(b"")
    wanted = [average] if damage == "averages" else [build_average(config, weights.master)]
    assert checkpoint.load(weights, optimizer, wanted) is None

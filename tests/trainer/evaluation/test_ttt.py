"""Test-time training scores no target after an update on it; with lr 0 it is sliding evaluation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.conftest import job_of
from trainer.config import Config
from trainer.evaluation.scoring import Validation, make_forward
from trainer.evaluation.ttt import TestTimeTraining
from trainer.model.model import Model, build_model
from trainer.pipeline import run_job
from trainer.run.dist import DistContext


class TargetRecorder:
    """Records for every target how often it was scored, and whether it was trained on before."""

    def __init__(self, num_targets: int) -> None:
        self.times_scored = np.zeros(num_targets, dtype=int)
        self.is_trained = np.zeros(num_targets, dtype=bool)
        self.leaks = 0

    def __call__(self, event: str, first: int, end: int) -> None:
        if event == "scored":
            self.leaks += int(self.is_trained[first:end].sum())
            self.times_scored[first:end] += 1
            return
        self.is_trained[first:end] = True
        assert (self.times_scored[first:end] == 1).all(), "trained on a target that has no score yet"


def setting(tiny: Callable[..., Config], **ttt: float) -> tuple[Config, Model]:
    overrides = {f"eval.ttt.{k}": v for k, v in ttt.items()}
    config = tiny(**{"eval.ttt.enabled": True, "eval.ttt.chunk_tokens": 320, "eval.stride": 12, **overrides})
    return config, build_model(config, "cpu")


def test_no_target_is_scored_after_an_update_on_it(
    tiny: Callable[..., Config], tiny_data: Path, alone: DistContext
) -> None:
    config, model = setting(tiny, epochs=2)
    validation = Validation(tiny_data, "", alone)
    recorder = TargetRecorder(validation.num_targets(32))
    score = TestTimeTraining(model, make_forward(model, config, alone.device), validation, config.eval, alone).run(
        recorder
    )
    assert recorder.leaks == 0
    assert (recorder.times_scored == 1).all()
    assert score.tokens == len(recorder.times_scored)
    last_chunk = (len(recorder.times_scored) - 1) // 320 * 320
    assert recorder.is_trained[:last_chunk].all(), "every chunk but the last is learned from"
    assert not recorder.is_trained[last_chunk:].any(), "no update after the last chunk"


def test_with_lr_zero_it_is_sliding_evaluation(
    tiny: Callable[..., Config], tiny_data: Path, alone: DistContext
) -> None:
    config, model = setting(tiny, lr=0.0)
    validation, forward = Validation(tiny_data, "", alone), make_forward(model, config, alone.device)
    ttt = TestTimeTraining(model, forward, validation, config.eval, alone).run()
    sliding = validation.score(forward, config.eval, config.eval.stride)
    assert ttt.nats == pytest.approx(sliding.nats, rel=1e-9)
    assert (ttt.tokens, ttt.bytes) == (sliding.tokens, sliding.bytes)


def test_a_later_token_cannot_change_an_earlier_score(
    tiny: Callable[..., Config], tiny_data: Path, alone: DistContext
) -> None:
    """Changing the text of chunk 3 must not change the scores of chunks 0 to 2."""
    scores = []
    for change in (False, True):
        config, model = setting(tiny, lr=0.05)
        validation = Validation(tiny_data, "", alone)
        if change:
            validation.tokens = validation.tokens.copy()
            validation.tokens[3 * 320 + 40 :] = 7
        losses: list[torch.Tensor] = []
        inner = make_forward(model, config, alone.device)

        def forward(a: torch.Tensor, b: torch.Tensor, inner=inner, losses=losses) -> torch.Tensor:  # type: ignore[no-untyped-def]
            out = inner(a, b)
            if not torch.is_grad_enabled():
                losses.append(out)
            return out

        TestTimeTraining(model, forward, validation, config.eval, alone).run()
        scores.append(losses)
    # batch k of windows belongs to chunk k here: 320 / 12 = 27 windows fit one batch
    for k in range(3):
        assert torch.equal(scores[0][k], scores[1][k])
    assert not torch.equal(scores[0][3], scores[1][3])


def test_the_learning_rate_is_a_cosine_that_ends_at_the_last_chunk(
    tiny: Callable[..., Config], tiny_data: Path, alone: DistContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over num_chunks - 1, as in the scripts: the last chunk would get 0."""
    config, model = setting(tiny, lr=0.1, epochs=1)
    lrs: list[float] = []
    monkeypatch.setattr(TestTimeTraining, "_step", lambda _, lr: lrs.append(lr))
    validation = Validation(tiny_data, "", alone)
    TestTimeTraining(model, make_forward(model, config, alone.device), validation, config.eval, alone).run()
    num_chunks = -(-validation.num_targets(32) // 320)
    assert num_chunks == 7
    assert lrs == pytest.approx([0.05 * (1 + np.cos(np.pi * i / 6)) for i in range(6)])


@pytest.mark.parametrize("frozen", [0, 2])
def test_only_the_first_blocks_own_parameters_are_frozen(
    tiny: Callable[..., Config], tiny_data: Path, alone: DistContext, frozen: int
) -> None:
    """As in PRs 975 and 1032, whose matrices lie in banks outside of the blocks and so are never frozen."""
    overrides = {
        "eval.ttt": {"enabled": True, "chunk_tokens": 320, "lr": 0.05, "freeze_blocks": frozen},
        "model.deep_delta": True,
        "recurrence": {"kind": "gated", "last_layers": 2, "steps": 2},
    }
    config = tiny(**overrides)
    model = build_model(config, "cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    validation = Validation(tiny_data, "", alone)
    TestTimeTraining(model, make_forward(model, config, alone.device), validation, config.eval, alone).run()
    unchanged = {
        f"{name}.{i}"
        for name, p in model.named_parameters()
        for i, (old, new) in enumerate(zip(before[name], p.detach(), strict=True))
        if torch.equal(old, new) and name not in ("embed", "bigram_table", "value_embed_table")
    }
    of_all_layers = ("q_gain", "attn_scale", "mlp_scale", "resid_mix", "deep_delta")
    own = {f"{name}.{layer}" for name in of_all_layers for layer in (0, 1)}
    gates_of_layer_1 = {"depth_gate.0", "depth_gate_bias.0"}
    assert unchanged == (own | gates_of_layer_1 if frozen else set())


def test_frozen_parameters_do_not_count_in_the_clip(
    tiny: Callable[..., Config], tiny_data: Path, alone: DistContext
) -> None:
    """The norm is that of the trained parameters' gradients only."""
    config, model = setting(tiny, freeze_blocks=3)
    ttt = TestTimeTraining(
        model, make_forward(model, config, alone.device), Validation(tiny_data, "", alone), config.eval, alone
    )
    before = model.embed.detach().clone()
    for name, p in model.named_parameters():
        p.grad = torch.full_like(p, 1e3 if name == "attn_scale" else 0.0)
    model.embed.grad = torch.full_like(model.embed, 1e-4)  # its norm is 0.01: below the limit, so not scaled
    ttt._step(1.0)
    torch.testing.assert_close(model.embed.detach(), before - 1e-4, rtol=0, atol=1e-7)


def test_it_lowers_bpb_and_does_not_change_the_artifact(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    config, _ = setting(tiny, lr=0.02)
    first, second = run_job(job_of(config, tiny(**{"eval.stride": 12, "export.codec": "zstd"})), tmp_path, alone)
    assert first.ttt_bpb is not None
    assert first.sliding_bpb is not None
    assert first.ttt_bpb < first.sliding_bpb
    assert second.sliding_bpb == first.sliding_bpb  # measured after the first trial's test-time training
    assert second.ttt_bpb is None

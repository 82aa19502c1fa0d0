"""Test-time training scores no target after an update on it; with lr 0 it is sliding evaluation."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainer.conftest import job_of
from trainer.config import Config
from trainer.evaluation.scoring import Forward, Score, Validation, Windows, make_forward
from trainer.evaluation.ttt import TestTimeTraining
from trainer.model.model import Model, build_model
from trainer.pipeline import run_job
from trainer.run.dist import DistContext

SEQ = 32  # eval.seq_len of the tiny configuration


def setting(tiny: Callable[..., Config], **ttt: float) -> tuple[Config, Model]:
    overrides = {f"eval.ttt.{k}": v for k, v in ttt.items()}
    config = tiny(**{"eval.ttt.enabled": True, "eval.ttt.chunk_tokens": 320, "eval.stride": 12, **overrides})
    return config, build_model(config, "cpu")


@dataclass(frozen=True)
class LonelyRank(DistContext):
    """One of several ranks without the others: it gets back its own part of every sum."""

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor


@dataclass
class Watched:
    """What one rank's test-time training really did, in order: ("scored" or "trained", first target) of each sequence.

    Training is what the forward pass saw with gradients, found again in the text by its content. Scoring is what
    `Validation.score_windows`, which has tests of its own, was asked to score: one entry per target.
    """

    events: list[tuple[str, int]]
    score: Score
    updates: list[int]  # sequences of each update

    def of(self, kind: str) -> list[int]:
        return [first for event, first in self.events if event == kind]


def watch(tiny: Callable[..., Config], folder: Path, rank: int = 0, ranks: int = 1) -> Watched:
    """Run test-time training on 140 sequences of random tokens in chunks of 48, more than the 32 of one update."""
    overrides = {"eval.ttt": {"enabled": True, "chunk_tokens": 48 * SEQ, "epochs": 2}, "eval.stride": 12}
    config = tiny(**overrides)
    dist = LonelyRank(rank, ranks, torch.device("cpu"))
    model, validation = build_model(config, "cpu"), Validation(folder, "", dist)
    validation.tokens = np.random.default_rng(0).integers(0, 400, 140 * SEQ + 5).astype(np.uint16)
    position = {validation.tokens[i : i + SEQ].tobytes(): i for i in range(len(validation.tokens) - SEQ)}
    inner, score_windows = make_forward(model, config, dist.device), validation.score_windows
    watched = Watched([], Score(0, 0, 0), [])

    def forward(inputs: Tensor, targets: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            firsts = [position[row.astype(np.uint16).tobytes()] for row in inputs.numpy()]
            assert torch.equal(targets[:, :-1], inputs[:, 1:])
            watched.events.extend(("trained", first) for first in firsts)
            watched.updates.append(len(firsts))
        return inner(inputs, targets)

    def spy(forward: Forward, plan: Windows, chosen: range, rows: int) -> Tensor:
        for i in chosen:
            first = int(plan.start[i] + plan.first_scored[i])
            watched.events.extend(("scored", target) for target in range(first, int(plan.start[i]) + SEQ))
        return score_windows(forward, plan, chosen, rows)

    validation.score_windows = spy  # type: ignore[method-assign]
    watched.score = TestTimeTraining(model, forward, validation, config.eval, dist).run()
    return watched


def test_every_sequence_is_trained_once_per_epoch_and_after_it_is_scored(
    tiny: Callable[..., Config], tiny_data: Path
) -> None:
    watched = watch(tiny, tiny_data)
    chunks = [range(0, 48), range(48, 96)]  # the last, 96 to 139, is not learned from
    expected = [SEQ * i for chunk in chunks for _ in range(2) for i in chunk]
    assert watched.of("trained") == expected
    assert watched.updates == [32, 16] * 4
    assert sorted(watched.of("scored")) == list(range(140 * SEQ))
    assert watched.score.tokens == 140 * SEQ
    scored: set[int] = set()
    for event, first in watched.events:
        if event == "scored":
            scored.add(first)
        else:
            assert scored.issuperset(range(first, first + SEQ)), f"sequence at {first} is trained before it is scored"


def test_ranks_divide_the_sequences_of_each_update(tiny: Callable[..., Config], tiny_data: Path) -> None:
    """Three ranks: 30 sequences per update. Together they see what one rank sees, each sequence once per epoch."""
    ranks = [watch(tiny, tiny_data, rank, 3) for rank in range(3)]
    seen = Counter(first for watched in ranks for first in watched.of("trained"))
    assert seen == dict.fromkeys(range(0, 96 * SEQ, SEQ), 2)
    assert {tuple(watched.updates) for watched in ranks} == {(10, 6) * 4}
    scored = Counter(target for watched in ranks for target in watched.of("scored"))
    assert scored == dict.fromkeys(range(140 * SEQ), 1)


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

"""bpb follows its definition; every target is scored exactly once; sliding evaluation equals a naive reference."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import Config
from trainer.data.shards import write_shard
from trainer.errors import DataError
from trainer.evaluation.config import EvalConfig
from trainer.evaluation.scoring import Validation, make_forward, windows
from trainer.model.model import build_model
from trainer.run.dist import DistContext

REAL_TOKENIZER = Path(__file__).parents[4] / "shared/data/tokenizers/fineweb_1024_bpe.model"


def reference_bpb(model: Path, tokens: list[int], nats: list[float]) -> float:
    """Compute bits per byte of tokens[1:] by the definition; nats[i] is the loss of tokens[i + 1]."""
    sp = sentencepiece.SentencePieceProcessor(model_file=str(model))
    total_bytes = 0
    for previous, target in itertools.pairwise(tokens):
        if sp.is_control(target) or sp.is_unknown(target) or sp.is_unused(target):
            continue
        if sp.is_byte(target):
            total_bytes += 1
            continue
        piece = sp.id_to_piece(target)
        if piece.startswith("\u2581"):
            piece = piece[1:]
            total_bytes += not (sp.is_control(previous) or sp.is_unknown(previous) or sp.is_unused(previous))
        total_bytes += len(piece.encode("utf-8"))
    return math.fsum(nats) / math.log(2) / total_bytes


@pytest.mark.parametrize("which", ["tiny", "sp1024"])
def test_bpb_equals_the_definition(which: str, tiny_data: Path, tmp_path: Path, alone: DistContext) -> None:
    model = tiny_data / "tiny.model" if which == "tiny" else REAL_TOKENIZER
    if not model.is_file():
        pytest.skip("the challenge's tokenizer is not on this machine")
    sp = sentencepiece.SentencePieceProcessor(model_file=str(model))
    texts = ["Plain words, and more.", "naïve façade — größer, 東京 🙂🙂", "  two  spaces ", "the\ttab\nand line"]
    tokens = [t for _ in range(9) for text in texts for t in (sp.bos_id(), *sp.encode(text), sp.eos_id())]
    tokens += [sp.unk_id(), *sp.encode("after unknown"), sp.unk_id(), sp.bos_id(), sp.eos_id()]
    tokens = tokens[: (len(tokens) - 1) // 8 * 8 + 1]
    assert any(sp.is_byte(t) for t in tokens)
    (tmp_path / "tok.model").write_bytes(model.read_bytes())
    write_shard(tmp_path / "fineweb_val_000000.bin", tokens)
    table = torch.rand(sp.vocab_size(), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5

    def forward(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return table[targets] + 0.1 * table[inputs]

    score = Validation(tmp_path, "", alone).score(forward, EvalConfig(seq_len=8, stride=8, batch_tokens=40), 8)
    nats = [float(table[b] + 0.1 * table[a]) for a, b in itertools.pairwise(tokens)]
    assert score.tokens == len(tokens) - 1
    assert score.bpb == pytest.approx(reference_bpb(model, tokens, nats), rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_windows_score_each_target_once_with_enough_context(data: st.DataObject) -> None:
    seq_len = data.draw(st.integers(1, 24))
    stride = data.draw(st.integers(1, seq_len))
    num_targets = data.draw(st.integers(seq_len, 200))
    plan = windows(num_targets, seq_len, stride)
    times = np.zeros(num_targets, dtype=int)
    for start, first in zip(plan.start, plan.first_scored, strict=True):
        assert 0 <= start <= num_targets - seq_len
        times[start + first : start + seq_len] += 1
        for target in range(start + first, start + seq_len):
            assert target - start >= min(target, seq_len - stride)  # context before the scored target
    assert (times == 1).all()


@pytest.mark.parametrize("num_tokens", [32 * 6 + 1, 32 * 6 + 20])
@pytest.mark.parametrize("stride", [8, 12, 32])
def test_sliding_equals_a_naive_reference(
    tiny: Callable[..., Config], tiny_data: Path, tmp_path: Path, alone: DistContext, stride: int, num_tokens: int
) -> None:
    """The reference runs the model once per target, with the context of the definition."""
    config = tiny(**{"eval.stride": stride})
    model = build_model(config, "cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(7)))
    source = Validation(tiny_data, "", alone)
    tokens = source.tokens[:num_tokens]
    (tmp_path / "tiny.model").write_bytes((tiny_data / "tiny.model").read_bytes())
    write_shard(tmp_path / "fineweb_val_000000.bin", tokens)
    score = Validation(tmp_path, "", alone).score(make_forward(model, config, alone.device), config.eval, stride)

    seq_len, num_targets = 32, (num_tokens - 1) // 32 * 32
    total = 0.0
    for target in range(num_targets):
        end = seq_len if target < seq_len else min(seq_len + -(-(target + 1 - seq_len) // stride) * stride, num_targets)
        block = torch.from_numpy(tokens[end - seq_len : target + 2].astype(np.int64))[None]
        with torch.no_grad():
            total += float(model(block[:, :-1], block[:, 1:])[0, -1])
    assert score.tokens == num_targets
    assert score.nats == pytest.approx(total, rel=1e-5)


def test_batch_size_and_number_of_ranks_do_not_change_the_score(tiny: Callable[..., Config], tiny_data: Path) -> None:
    config = tiny()
    model = build_model(config, "cpu")
    forward = make_forward(model, config, torch.device("cpu"))
    whole = Validation(tiny_data, "", DistContext(0, 1, torch.device("cpu")))
    plan = windows(whole.num_targets(32), 32, 16)
    total = whole.score_windows(forward, plan, range(len(plan)), 32)
    parts = sum(
        whole.score_windows(forward, plan, range(a, min(a + 37, len(plan))), 5) for a in range(0, len(plan), 37)
    )
    torch.testing.assert_close(total, parts, rtol=1e-7, atol=0)


@given(st.integers(0, 20), st.integers(0, 40), st.integers(1, 9))
def test_the_ranks_divide_a_range_in_order(low: int, length: int, world_size: int) -> None:
    shares = [DistContext(rank, world_size, torch.device("cpu")).share(low, low + length) for rank in range(world_size)]
    assert list(itertools.chain(*shares)) == list(range(low, low + length))
    assert max(len(share) for share in shares) == -(-length // world_size)


def test_the_model_is_causal(tiny: Callable[..., Config]) -> None:
    """Changing token t must not change any loss before t (validity rule C1)."""
    model = build_model(tiny(), "cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
        tokens = torch.randint(0, 400, (1, 33), generator=torch.Generator().manual_seed(0))
        changed = tokens.clone()
        changed[0, 20] = (changed[0, 20] + 1) % 400
        before, after = (model(t[:, :-1], t[:, 1:])[0] for t in (tokens, changed))
    assert torch.equal(before[:19], after[:19])
    assert not torch.equal(before[20:], after[20:])


def test_too_short_a_split_is_refused(tiny_data: Path, tmp_path: Path, alone: DistContext) -> None:
    (tmp_path / "tiny.model").write_bytes((tiny_data / "tiny.model").read_bytes())
    write_shard(tmp_path / "fineweb_val_000000.bin", range(20))
    with pytest.raises(DataError, match=r"20 tokens.*seq_len 32"):
        Validation(tmp_path, "", alone).num_targets(32)

"""Every parameter is in one group and trained; Muon equals references; gradients are clipped by the global norm."""

from collections.abc import Callable

import pytest
import torch

from trainer.config import Config
from trainer.model.embeddings import bigram_bucket
from trainer.model.model import build_model, num_params
from trainer.optim.config import OptimConfig
from trainer.optim.muon import MuonBank, newton_schulz
from trainer.optim.optimizer import Optimizer, group_parameters
from trainer.optim.schedule import TrainProgress, muon_momentum
from trainer.presets.resolve import build_config, load_preset
from trainer.quant.tensor_classes import CLASS_OF
from trainer.run.dist import DistContext


@pytest.mark.parametrize("preset", ["cpu-smoke", "sp1024-9l", "sp1024-11l"])
def test_every_parameter_is_in_exactly_one_group(preset: str) -> None:
    config = build_config(load_preset(preset).overrides, preset)
    named = dict(build_model(config, "cpu").named_parameters())
    groups = group_parameters(named)
    grouped = [*groups.muon, *groups.embed, *groups.scalar]
    assert sorted(grouped) == sorted(named)
    assert len(grouped) == len(set(grouped))
    assert all(named[n].dim() == 3 for n in groups.muon)
    matrices = {n for n, p in named.items() if p.dim() == 3 or n.endswith(("_table", "_proj", "embed"))}
    assert matrices - {"resid_mix"} == set(CLASS_OF) & set(named)


@pytest.mark.parametrize(("preset", "published"), [("sp1024-11l", 26_993_756), ("sp1024-9l", 17_059_912)])
def test_parameter_counts_are_the_published_ones(preset: str, published: int) -> None:
    """26,993,756: logs of PR 975. 17,059,912: the challenge's baseline log."""
    config = build_config(load_preset(preset).overrides, preset)
    with torch.device("meta"):
        assert num_params(build_model_on_meta(config)) == published


def build_model_on_meta(config: Config) -> torch.nn.Module:
    from trainer.model.model import Model

    return Model(config)


def test_every_parameter_moves(tiny: Callable[..., Config], alone: DistContext) -> None:
    """Parameters without a gradient, such as two zero tables, would never be trained. Three steps suffice."""
    config = tiny(**{"model.deep_delta": True})
    model = build_model(config, "cpu")
    master = {n: p.detach().clone() for n, p in model.named_parameters()}
    initial = {n: w.clone() for n, w in master.items()}
    optimizer = Optimizer(master, config, alone)
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        tokens = torch.randint(0, 400, (4, 33), generator=generator)
        model.zero_grad()
        model(tokens[:, :-1], tokens[:, 1:]).mean().backward()
        optimizer.step(dict(model.named_parameters()), TrainProgress(step, 0.0, 0.0, 1.0))
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(master[name])
    assert [n for n in master if torch.equal(master[n], initial[n])] == []


def test_newton_schulz_makes_singular_values_nearly_equal() -> None:
    for shape in ((3, 24, 64), (3, 64, 24), (1, 32, 32)):
        g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        singular = torch.linalg.svdvals(newton_schulz(g, 5, torch.float32))
        assert 0.6 < float(singular.quantile(0.1)) <= float(singular.max()) < 1.3
        assert newton_schulz(g, 5, torch.float32).shape == g.shape
    # batching over layers changes nothing
    whole = newton_schulz(g.expand(2, -1, -1), 5, torch.float32)
    torch.testing.assert_close(whole[0], newton_schulz(g, 5, torch.float32)[0], rtol=1e-4, atol=1e-5)


def test_muon_equals_torch_optim_muon() -> None:
    """The reference runs per matrix, with the same momentum and scale."""
    optim = OptimConfig(weight_decay=0.04, muon_momentum=0.9)
    w = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(0))
    ours = w.clone()
    bank = MuonBank(ours, optim)
    theirs = [torch.nn.Parameter(layer.clone()) for layer in w]
    reference = torch.optim.Muon(
        theirs, lr=0.02, weight_decay=0.04, momentum=0.9, nesterov=True, adjust_lr_fn="original"
    )
    for step in range(4):
        g = torch.randn(w.shape, generator=torch.Generator().manual_seed(step + 1))
        bank.update(ours, g, 0.02, 0.9)
        for p, grad in zip(theirs, g, strict=True):
            p.grad = grad.clone()
        reference.step()
    # torch's iterates in bf16, ours in fp32 on CPU
    torch.testing.assert_close(ours, torch.stack([p.detach() for p in theirs]), rtol=0, atol=3e-3)


def test_muon_vs_scales_by_the_spread_of_the_gradient() -> None:
    """Variance buffer as defined: mu * var + mu (1 - mu) (momentum_prev - g)^2."""
    optim = OptimConfig(muon_variant="muon_vs")
    w = torch.zeros(1, 4, 4)
    bank = MuonBank(w, optim)
    mu, momentum, variance = 0.9, torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    for step in range(3):
        g = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(step))
        variance = mu * variance + mu * (1 - mu) * (momentum - g) ** 2
        momentum = mu * momentum + (1 - mu) * g
        bank.update(w, g, 0.1, mu)
    assert bank.variance is not None
    torch.testing.assert_close(bank.variance, variance)
    torch.testing.assert_close(bank.momentum, momentum)


def test_muon_vs_of_pr_1032_feeds_its_variance_with_the_momentum_sum() -> None:
    """PR 1032: variance of (momentum sum - gradient), plain Nesterov update over its root, then orthogonalization."""
    optim = OptimConfig(muon_variant="muon_vs_pr1032", weight_decay=0.1)
    w = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(9))
    ours, expected = w.clone(), w.clone()
    bank, paper = MuonBank(ours, optim), MuonBank(w.clone(), OptimConfig(muon_variant="muon_vs"))
    mu, momentum, variance = 0.9, torch.zeros_like(w), torch.zeros_like(w)
    for step in range(4):
        g = torch.randn(w.shape, generator=torch.Generator().manual_seed(step))
        variance = mu * variance + mu * (1 - mu) * (momentum - g) ** 2
        momentum = mu * momentum + g
        update = (g + mu * momentum) / (variance.sqrt() + 1e-8)
        expected = expected * (1 - 0.02 * 0.1) - 0.02 * (6 / 4) ** 0.5 * newton_schulz(update, 5, torch.float32)
        bank.update(ours, g, 0.02, mu)
        paper.update(w, g, 0.02, mu)
        torch.testing.assert_close(ours, expected)
    assert bank.variance is not None
    assert paper.variance is not None
    assert not torch.allclose(bank.variance, paper.variance, rtol=0.1)


def test_momentum_warms_up() -> None:
    optim = OptimConfig(muon_momentum_start=0.92, muon_momentum=0.99, muon_momentum_steps=1500)
    assert muon_momentum(optim, 0) == pytest.approx(0.92)
    assert muon_momentum(optim, 750) == pytest.approx(0.955)
    assert muon_momentum(optim, 9000) == pytest.approx(0.99)


def test_gradient_clip_is_the_global_norm(tiny: Callable[..., Config], alone: DistContext) -> None:
    config = tiny(**{"train.grad_clip": 0.3})
    master = {n: p.detach().clone() for n, p in build_model(config, "cpu").named_parameters()}
    optimizer = Optimizer(master, config, alone)
    shards = {n: torch.randn(master[n].shape) for n in optimizer.groups.muon}
    others = [torch.randn(master[n].shape) for n in (*optimizer.groups.embed, *optimizer.groups.scalar)]
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in (*shards.values(), *others)]
    for p, g in zip(parameters, (*shards.values(), *others), strict=True):
        p.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(parameters, 0.3)
    optimizer._clip_(shards, others)
    for p, g in zip(parameters, (*shards.values(), *others), strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-7)


def test_bigram_buckets_depend_on_the_pair_and_stay_in_range() -> None:
    tokens = torch.randint(0, 1024, (3, 200), generator=torch.Generator().manual_seed(0))
    buckets = bigram_bucket(tokens, 512)
    assert int(buckets.min()) >= 0
    assert int(buckets[:, 1:].max()) < 511
    assert (buckets[:, 0] == 511).all()
    same = bigram_bucket(torch.tensor([[5, 7, 9, 7], [8, 7, 9, 7]]), 512)
    assert torch.equal(same[0, 2:], same[1, 2:])
    assert same[0, 1] != same[1, 1]

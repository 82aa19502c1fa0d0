"""Each rank clips its own gradient before the reduction, as PRs 975 and 1032 do; with two real ranks."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.model import build_model
from trainer.optim.optimizer import Optimizer
from trainer.optim.schedule import TrainProgress
from trainer.run.dist import DistContext

LIMIT = 0.3
NOW = TrainProgress(3, 1.0, 0.1, 1.0)


def gradients(config: Config, rank: int) -> dict[str, Tensor]:
    """Rank 1's gradient is 50 times as long as rank 0's, so the mean before clipping is nearly rank 1's alone."""
    generator = torch.Generator().manual_seed(rank)
    named = build_model(config, "cpu").named_parameters()
    return {name: 50**rank * 1e-2 * torch.randn(p.shape, generator=generator) for name, p in named}


def step(config: Config, grads: dict[str, Tensor], dist: DistContext) -> dict[str, Tensor]:
    """Return the master weights after one step with these gradients on this rank."""
    model = build_model(config, "cpu")
    compute = dict(model.named_parameters())
    master = {name: p.detach().clone() for name, p in compute.items()}
    for name, p in compute.items():
        p.grad = grads[name].clone()
    Optimizer(master, config, dist).step(compute, NOW)
    return master


def run_rank(rank: int, config: Config, folder: Path) -> None:
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    master = step(config, gradients(config, rank), DistContext(rank, 2, torch.device("cpu")))
    torch.save(master, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_each_rank_clips_its_own_gradient(tiny: Callable[..., Config], tmp_path: Path, alone: DistContext) -> None:
    config = tiny(**{"train.grad_clip": LIMIT})
    torch.multiprocessing.spawn(run_rank, (config, tmp_path), nprocs=2)
    found = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    clipped = []
    for rank in range(2):
        own = {name: nn.Parameter(torch.zeros_like(g)) for name, g in gradients(config, rank).items()}
        for name, g in gradients(config, rank).items():
            own[name].grad = g
        nn.utils.clip_grad_norm_(own.values(), LIMIT)
        clipped.append({name: p.grad for name, p in own.items() if p.grad is not None})
    mean = {name: (clipped[0][name] + clipped[1][name]) / 2 for name in clipped[0]}
    expected = step(tiny(**{"train.grad_clip": 0.0}), mean, alone)
    for name, w in expected.items():
        torch.testing.assert_close(found[0][name], w, rtol=0, atol=2e-4, msg=name)
        assert torch.equal(found[0][name], found[1][name]), name

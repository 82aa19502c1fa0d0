"""Process group and the few collectives the trainer needs. One process or N under torchrun; gloo on CPU, NCCL on CUDA.

The clock is agreed on over a gloo group even on CUDA: a broadcast through NCCL would have to wait for the GPU and stall
the launch of the next step. A rank whose torchrun agent has died ends itself (`watch_parent`): torch starts ranks in
sessions of their own, so nobody else would.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

COLLECTIVE_TIMEOUT = timedelta(minutes=10)

# torch 2.13 renamed these two; the GPU images in use have 2.11.
_all_gather: Callable[..., object] = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter: Callable[..., object] = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True)
class DistContext:
    """Who I am among how many, and where I compute."""

    rank: int
    world_size: int
    device: torch.device
    host_group: "dist.ProcessGroup | None" = None  # gloo, for numbers that live on the host

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, low: int, high: int) -> range:
        """This rank's part of low..high-1: adjoining parts, equal but for the last ones, which may be short or empty."""
        each = -(-(high - low) // self.world_size)
        first = min(low + self.rank * each, high)
        return range(first, min(first + each, high))

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean_(self, tensor: Tensor) -> Tensor:
        return self.sum(tensor).div_(self.world_size) if self.world_size > 1 else tensor

    def reduce_scatter_mean(self, whole: Tensor) -> Tensor:
        """Mean over ranks of `whole` (its first dim a multiple of world_size); each rank gets its slice of dim 0."""
        if self.world_size == 1:
            return whole
        part = torch.empty_like(whole[: whole.size(0) // self.world_size])
        _reduce_scatter(part, whole)
        return part.div_(self.world_size)

    def all_gather(self, part: Tensor) -> Tensor:
        """The ranks' slices, joined along dim 0."""
        if self.world_size == 1:
            return part
        whole = part.new_empty((part.size(0) * self.world_size, *part.shape[1:]))
        _all_gather(whole, part.contiguous())
        return whole

    def agree(self, number: float) -> float:
        """Rank 0's number, on every rank, without touching the accelerator."""
        if self.world_size == 1:
            return number
        box = torch.tensor([number], dtype=torch.float64)
        dist.broadcast(box, src=0, group=self.host_group)
        return float(box.item())

    def minimum(self, number: float) -> float:
        """The smallest of the ranks' numbers, on every rank, without touching the accelerator."""
        if self.world_size == 1:
            return number
        box = torch.tensor([number], dtype=torch.float64)
        dist.all_reduce(box, op=dist.ReduceOp.MIN, group=self.host_group)
        return float(box.item())

    def all_true(self, flag: bool) -> bool:
        """Whether the flag is true on every rank."""
        if self.world_size == 1:
            return flag
        box = torch.tensor([0 if flag else 1], dtype=torch.int64)
        dist.all_reduce(box, group=self.host_group)
        return int(box.item()) == 0

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier(group=self.host_group)


def start_ranks(device_name: str) -> DistContext:
    """Join the process group that torchrun's environment describes; alone without one.

    Args:
        device_name: "auto", "cpu" or "cuda".
    Raises:
        RuntimeError: CUDA is asked for and not there.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    use_cuda = device_name == "cuda" or (device_name == "auto" and torch.cuda.is_available())
    if use_cuda and not torch.cuda.is_available():
        raise RuntimeError("train.device: cuda: no CUDA device is visible on this node")
    device = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(device)
    if world_size == 1:
        return DistContext(rank, 1, device)
    if use_cuda:
        dist.init_process_group("nccl", timeout=COLLECTIVE_TIMEOUT, device_id=device)
        return DistContext(rank, world_size, device, dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT))
    dist.init_process_group("gloo", timeout=COLLECTIVE_TIMEOUT)
    return DistContext(rank, world_size, device, None)


def stop_ranks() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def watch_parent(on_orphan: Callable[[], None] = lambda: os._exit(75), every_s: float = 1.0) -> None:
    """End this process when its parent (torchrun's agent) dies. A daemon thread; costs one system call a second."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_s)
        on_orphan()

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()

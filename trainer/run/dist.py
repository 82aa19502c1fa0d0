"""The process group and the collectives of the trainer: one process, or N under torchrun; gloo on CPU, NCCL on CUDA.

Numbers on the host, such as the clock's, use a gloo group even on CUDA: NCCL would wait for the GPU and delay the launch of
the next step. A rank ends itself when its torchrun agent dies (`watch_parent`): torch starts ranks in new sessions, so
killing the agent's session does not end them.
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
    """This process's rank, the number of ranks, and the device."""

    rank: int
    world_size: int
    device: torch.device
    host_group: "dist.ProcessGroup | None" = None  # gloo, for numbers that live on the host

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, low: int, high: int) -> range:
        """Return this rank's part of low..high-1. Parts are adjacent and equally long; the last may be shorter or empty."""
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
        """Return this rank's slice (of dim 0, a multiple of world_size) of the mean of `whole` over ranks."""
        if self.world_size == 1:
            return whole
        part = torch.empty_like(whole[: whole.size(0) // self.world_size])
        _reduce_scatter(part, whole)
        return part.div_(self.world_size)

    def all_gather(self, part: Tensor) -> Tensor:
        """Return the ranks' slices, joined along dim 0."""
        if self.world_size == 1:
            return part
        whole = part.new_empty((part.size(0) * self.world_size, *part.shape[1:]))
        _all_gather(whole, part.contiguous())
        return whole

    def agree(self, number: float) -> float:
        """Return rank 0's number, on every rank. It does not use the accelerator."""
        if self.world_size == 1:
            return number
        box = torch.tensor([number], dtype=torch.float64)
        dist.broadcast(box, src=0, group=self.host_group)
        return float(box.item())

    def minimum(self, number: float) -> float:
        """Return the smallest of the ranks' numbers, on every rank. It does not use the accelerator."""
        if self.world_size == 1:
            return number
        box = torch.tensor([number], dtype=torch.float64)
        dist.all_reduce(box, op=dist.ReduceOp.MIN, group=self.host_group)
        return float(box.item())

    def all_true(self, flag: bool) -> bool:
        """Return whether the flag is true on every rank."""
        return self.minimum(float(flag)) == 1

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier(group=self.host_group)


def start_ranks(device_name: str) -> DistContext:
    """Join the process group that torchrun's environment variables describe; without them, run as one process.

    Raises:
        RuntimeError: `device_name` ("auto", "cpu" or "cuda") is "cuda" and no CUDA device is visible.
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
    """Start a thread that ends this process when its parent, torchrun's agent, dies."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_s)
        on_orphan()

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()

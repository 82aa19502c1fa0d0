"""Describes the hardware of a run and measures its speed, for the record."""

import os
import platform
import socket
import statistics
import time
from pathlib import Path

import torch

from trainer.run.dist import DistContext


def node_name() -> str:
    return socket.gethostname()


def describe_hardware(dist: DistContext) -> str:
    """Return for example `8 x NVIDIA H100 80GB HBM3`, or `2 ranks on AMD EPYC 7B13 (2 cores)`."""
    if dist.device.type == "cuda":
        return f"{dist.world_size} x {torch.cuda.get_device_name(dist.device)}"
    noun = "rank" if dist.world_size == 1 else "ranks"
    return f"{dist.world_size} {noun} on {_cpu_name()} ({os.cpu_count()} cores)"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def probe_tflops(device: torch.device) -> float:
    """Measure the speed of a square matrix product on this rank's device, TFLOP/s, to tell a slow machine from a slow model.

    On CUDA bf16 and 8192 wide, for 1.5 s; on CPU fp32 and 512 wide, for 0.15 s. Returns the median of short bursts without
    the first third, in which clock rates rise. It leaves the global random generators and `peak_memory_mib` as they were.
    """
    is_cuda = device.type == "cuda"
    width, products, seconds = (8192, 20, 1.5) if is_cuda else (512, 4, 0.15)
    dtype = torch.bfloat16 if is_cuda else torch.float32
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(width, width, generator=generator, device=device).to(dtype) for _ in range(2))
    bursts_s: list[float] = []
    end = time.perf_counter() + seconds
    while len(bursts_s) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        for _ in range(products):
            torch.mm(left, right)
        if is_cuda:
            torch.cuda.synchronize(device)
        bursts_s.append(time.perf_counter() - started)
    if is_cuda:
        del left, right
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return products * 2 * width**3 / statistics.median(bursts_s[len(bursts_s) // 3 :]) / 1e12


def peak_memory_mib(device: torch.device) -> float | None:
    """Return the peak memory of the device's allocator on this rank, MiB; None on CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None

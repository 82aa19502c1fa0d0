"""What a run ran on, for the record."""

import os
import platform
import socket
from pathlib import Path

import torch

from trainer.dist import Ranks


def node_name() -> str:
    return socket.gethostname()


def describe_hardware(ranks: Ranks) -> str:
    """e.g. `8 x NVIDIA H100 80GB HBM3`, or `2 ranks on AMD EPYC 7B13 (2 cores)`."""
    if ranks.device.type == "cuda":
        return f"{ranks.world_size} x {torch.cuda.get_device_name(ranks.device)}"
    noun = "rank" if ranks.world_size == 1 else "ranks"
    return f"{ranks.world_size} {noun} on {_cpu_name()} ({os.cpu_count()} cores)"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def peak_memory_mib(device: torch.device) -> float | None:
    """Peak of the device's allocator on this rank, MiB; None on CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None

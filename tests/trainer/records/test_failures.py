"""The kind of a failure: what may go away by itself is infra, an unexpected exception is the user's."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainer.errors import DataError, DivergedError, InputError
from trainer.records.failures import failure_of
from trainer.records.layout import RunLayout

ROOT = Path(__file__).resolve().parents[3]
RANK = """
import os, signal, sys
import torch
import torch.distributed as dist
import trainer.pipeline
from trainer.__main__ import main

def run_job(job, out, context):
    if context.rank == 1:
        {accident}
    while True:
        context.sum(torch.ones(8))

trainer.pipeline.run_job = run_job
sys.exit(main())
"""


def caught(error: Exception) -> Exception:
    try:
        raise error
    except Exception as found:
        return found


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KeyError("blocks.3"), "user_error"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "user_error"),
        (AssertionError(), "user_error"),
        (ZeroDivisionError("division by zero"), "user_error"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/data/x"), "user_error"),
        (RuntimeError("CUDA error: device-side assert triggered"), "user_error"),
        (RuntimeError("CUDA error: unspecified launch failure"), "infra"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "infra"),
        (RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:1"), "infra"),
        (torch.distributed.DistBackendError("the watchdog has found a timeout"), "infra"),
        (ConnectionResetError("reset"), "infra"),
        (OSError(errno.ENOSPC, "No space left on device"), "infra"),
        (OSError(errno.EIO, "Input/output error"), "infra"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "oom"),
        (MemoryError(), "oom"),
        (DivergedError("loss is nan"), "diverged"),
        (DataError("x.bin", "CUDA error", "fetch it"), "data_error"),
        (InputError("x", "y", 1, "z"), "user_error"),
    ],
)
def test_kinds(error: Exception, kind: str) -> None:
    failure = failure_of(caught(error))
    assert failure.kind == kind
    assert "\n" not in failure.reason
    assert str(error).split("\n")[0] in failure.reason
    assert "raise error" in failure.trace


def test_a_collective_that_fails_is_infra_whatever_it_says() -> None:
    """Without a process group even `barrier` fails, with an error raised inside torch.distributed."""
    try:
        torch.distributed.distributed_c10d._world.default_pg = None
        torch.distributed.new_group([0])
    except (RuntimeError, ValueError) as error:
        failed: Exception = RuntimeError("anything").with_traceback(error.__traceback__)
    assert failure_of(failed).kind == "infra"


@pytest.mark.parametrize(
    ("accident", "kind", "reason"),
    [
        ('raise KeyError("blocks.3")', "user_error", "KeyError: 'blocks.3'"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "infra", ""),
    ],
)
def test_on_two_real_ranks(accident: str, kind: str, reason: str, tmp_path: Path) -> None:
    """The rank that failed is the reason, and a rank that only lost its peer is not a bug."""
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(accident=accident))
    config = tmp_path / "job.json"
    config.write_text(json.dumps({"preset": "cpu-smoke", "set": {"data.path": str(tmp_path)}}))
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    command = [*ranks, "--config", str(config), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode != 0
    failures = [job.failure for job in map(RunLayout(tmp_path / "run").job, job_names(tmp_path / "run"))]
    found = [json.loads(path.read_text()) for path in failures if path.exists()]
    if kind == "infra" and not found:
        return  # torchrun ended the other rank before it noticed
    assert [failure["kind"] for failure in found] == [kind], done.stderr
    assert reason in found[0]["reason"]
    assert ("KeyError" in done.stderr) == (kind == "user_error")


def job_names(root: Path) -> list[str]:
    return [path.name for path in (root / "jobs").glob("*")]

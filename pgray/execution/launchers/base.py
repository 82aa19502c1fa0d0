"""How the trainer is started: the command line and the environment of one node's part of a job.

torchrun: one agent per node; several nodes meet at a c10d store on the first. srun: Slurm starts the ranks of each node
in a step of its own, where torchrun's rendezvous does not work. plain: a single process, without either.
"""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from trainer.errors import InputError
from trainer.records.job import Job
from trainer.run.config import Machine

_ROOT = Path(__file__).resolve().parents[3]
_JOIN_S = 300  # how long nodes wait for each other

# What an outer launcher left would make ranks join the wrong group or hang: Ray's worker, torchrun, and MPI below Slurm.
_STALE_PREFIXES = ("RAY_", "PGRAY_", "TORCHELASTIC_", "MASTER_", "PMI_", "PMIX_", "OMPI_")
_STALE = {"RANK", "WORLD_SIZE"} | {
    f"{group}_{what}" for group in ("LOCAL", "GROUP", "ROLE") for what in ("RANK", "WORLD_SIZE", "NAME")
}
# Libraries take these for "one of N tasks". srun needs them, but for what describes the step that surrounds it.
_SLURM = ("SLURM_", "SLURMD_")
_SLURM_STEP = (
    "SLURM_STEP", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_TASK", "SLURM_CPU_BIND",
    "SLURM_CPUS_PER_TASK", "SLURM_DISTRIBUTION", "SLURM_MEM_", "SLURM_TRES",
)  # fmt: skip

# Slurm numbers the tasks of a step; the rest of what torch reads is set by `environment`. Slurm shows a task all GPUs of
# the allocation, and Ray has given the job some of them.
_RANK_FROM_SLURM = (
    "export LOCAL_RANK=$SLURM_LOCALID RANK=$((GROUP_RANK * LOCAL_WORLD_SIZE + SLURM_LOCALID)) "
    'CUDA_VISIBLE_DEVICES="$PGRAY_GPUS"; exec "$@"'
)


@dataclass(frozen=True)
class LaunchSettings:
    """What all jobs of a sweep have in common. Paths are absolute: a worker's folder is not the driver's.

    `code`: the folder that jobs run from, with the project's packages. `program` stands in for `python -m trainer` in
    tests. `grace_s` is how long a job may take to end by itself, `stall_s` how long it may say nothing; `driver` is the note
    that the driver left in the run folder (lock.py). `code_sha`: which trainer is in `code`; None if nobody looked.
    """

    run_root: Path
    machine: Machine
    program: tuple[str, ...] | None = None
    grace_s: float = 10.0
    timeout_s: float | None = None
    stall_s: float = 900.0
    driver: dict[str, Any] | None = None
    code: Path = _ROOT
    code_sha: str | None = None

    @property
    def end_patience_s(self) -> float:
        """How long a job that must end may take to say how it ended; of several nodes, one waits for the others."""
        return (self.grace_s + 5) * (1 if self.machine.nodes == 1 else 2)

    def job_timeout_s(self, job: Job) -> float:
        """Generous: a hung job must end, a slow one must not. Validation and compilation are off the training clock."""
        if self.timeout_s is not None:
            return self.timeout_s
        return 2 * job.config.train.wallclock_s + 1800 + 1200 * len(job.trials)

    def as_text(self) -> str:
        """For a worker, which must not import this project before it knows from where."""
        return _as_launch.dump_json(self).decode()

    @staticmethod
    def from_text(text: str) -> "LaunchSettings":
        return _as_launch.validate_json(text)


_as_launch = TypeAdapter(LaunchSettings)


@dataclass(frozen=True)
class NodeRendezvous:
    """Where one node's part of a job stands among the others. `meeting`: host:port on the first node."""

    rank: int = 0
    address: str = "127.0.0.1"
    meeting: str = ""


def free_port() -> int:
    """A port of this machine that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def command(shared: LaunchSettings, job: Path, place: NodeRendezvous, token: str) -> list[str]:
    """The command of one node's part of a job.

    Args:
        job: the job file.
        place: which of the nodes this is.
        token: tells this rendezvous from all others.
    Raises:
        InputError: srun outside a Slurm allocation would ask for a new one, and wait.
    """
    machine = shared.machine
    arguments = ["--config", str(job), "--out", str(shared.run_root)]
    if machine.launcher == "torchrun":
        start = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={machine.nproc}"]
        start += ["--standalone"] if machine.nodes == 1 else _rendezvous(machine, place, token)
        start += ["-m", "trainer"] if shared.program is None else ["--no-python", *shared.program]
        return [*start, *arguments]
    rank = shared.program or (sys.executable, "-m", "trainer")
    if machine.launcher == "srun":
        return [*_srun(machine), "sh", "-c", _RANK_FROM_SLURM, "sh", *rank, *arguments]
    return [*rank, *arguments]


def environment(inherited: Mapping[str, str], shared: LaunchSettings, place: NodeRendezvous) -> dict[str, str]:
    """The inherited environment without stale launcher variables, with what this job needs.

    CUDA_VISIBLE_DEVICES stays as Ray set it; a job that asked for no GPU sees none, so that `gpus: 0` means CPU.
    """
    machine = shared.machine
    stale = (*_STALE_PREFIXES, *(_SLURM_STEP if machine.launcher == "srun" else _SLURM))
    kept = {k: v for k, v in inherited.items() if k not in _STALE and not k.startswith(stale)}
    kept["OMP_NUM_THREADS"] = str(max(1, machine.cpus // machine.nproc))
    kept["PYTHONUNBUFFERED"] = "1"
    kept.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")  # ranks end when a peer died; torchrun sets it, srun not
    if machine.gpus == 0:
        kept["CUDA_VISIBLE_DEVICES"] = ""
    if machine.launcher == "srun":
        host, _, port = place.meeting.rpartition(":")
        kept |= {"MASTER_ADDR": host, "MASTER_PORT": port, "WORLD_SIZE": str(machine.world_size)}
        kept |= {"LOCAL_WORLD_SIZE": str(machine.nproc), "GROUP_RANK": str(place.rank)}
        kept["PGRAY_GPUS"] = kept.get("CUDA_VISIBLE_DEVICES", "")
    paths = [str(shared.code), *kept.get("PYTHONPATH", "").split(":")]
    kept["PYTHONPATH"] = ":".join(dict.fromkeys(path for path in paths if path))
    return kept


def _rendezvous(machine: Machine, place: NodeRendezvous, token: str) -> list[str]:
    """How torchrun's agents find each other. They take group ranks in the order of their addresses (see `agents.py`)."""
    return [
        f"--nnodes={machine.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={place.meeting}", f"--rdzv-id={token}",
        f"--rdzv-conf=is_host={int(place.rank == 0)},join_timeout={_JOIN_S}", f"--local-addr={place.address}",
    ]  # fmt: skip


def _srun(machine: Machine) -> list[str]:
    if "SLURM_JOB_ID" not in os.environ:
        fix = "this node is in no Slurm allocation; start Ray inside one, or use launcher: torchrun"
        raise InputError("sweep", "launcher", "srun", fix)
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname().split(".")[0]
    return [
        "srun", "--nodes=1", f"--nodelist={node}", f"--ntasks={machine.nproc}", f"--ntasks-per-node={machine.nproc}",
        f"--cpus-per-task={max(1, machine.cpus // machine.nproc)}", "--overlap", "--cpu-bind=none", "--export=ALL",
        "--kill-on-bad-exit=1", "--unbuffered",
    ]  # fmt: skip

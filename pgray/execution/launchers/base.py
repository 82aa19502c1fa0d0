"""The interface of a launcher, which starts the ranks of a job on one node, and how launchers are found."""

import importlib
import pkgutil
import socket
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import TypeAdapter

from pgray.execution import launchers
from pgray.store.process_records import Driver
from trainer.records.job import Job
from trainer.run.config import Machine

_ROOT = Path(__file__).resolve().parents[3]

# Variables left by an outer launcher (Ray's worker, torchrun, MPI below Slurm) would make ranks join the wrong group or hang.
_STALE_PREFIXES = ("RAY_", "PGRAY_", "TORCHELASTIC_", "MASTER_", "PMI_", "PMIX_", "OMPI_")
_STALE = {"RANK", "WORLD_SIZE"} | {
    f"{group}_{what}" for group in ("LOCAL", "GROUP", "ROLE") for what in ("RANK", "WORLD_SIZE", "NAME")
}


@dataclass(frozen=True)
class LaunchSettings:
    """What all jobs of a sweep have in common. Paths are absolute, since a worker has another working directory.

    Args:
        program: replaces `python -m trainer` in tests.
        grace_s: how long a job may take to end after it was asked to.
        timeout_s: wall-clock limit of a job; None for one computed from the job.
        stall_s: how long a job may print nothing.
        driver: the driver that launches the jobs.
        code: the folder that jobs run from, with the project's packages.
        code_sha: identifies the trainer in `code`; None if it was not determined.
    """

    run_root: Path
    machine: Machine
    program: tuple[str, ...] | None = None
    grace_s: float = 10.0
    timeout_s: float | None = None
    stall_s: float = 900.0
    driver: Driver | None = None
    code: Path = _ROOT
    code_sha: str | None = None

    @property
    def end_patience_s(self) -> float:
        """How long to wait for the exit record of a job that must end; with several nodes, one waits for the others."""
        return (self.grace_s + 5) * (1 if self.machine.nodes == 1 else 2)

    def job_timeout_s(self, job: Job) -> float:
        """Return a generous limit, to end jobs that hang: validation and compilation are not part of the training clock."""
        if self.timeout_s is not None:
            return self.timeout_s
        return 2 * job.config.train.wallclock_s + 1800 + 1200 * len(job.trials)

    def to_json(self) -> str:
        """Serialize for a worker, which cannot unpickle this class before it knows where to import the project from."""
        return _ADAPTER.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> "LaunchSettings":
        return _ADAPTER.validate_json(text)


_ADAPTER = TypeAdapter(LaunchSettings)


@dataclass(frozen=True)
class NodeRendezvous:
    """Identifies one node of a job, and says how it finds the others."""

    rank: int = 0
    address: str = "127.0.0.1"
    endpoint: str = ""  # host:port on the node of rank 0
    token: str = field(default_factory=lambda: uuid.uuid4().hex)  # of the job and its rendezvous; marks its processes
    ray_node: str | None = None  # Ray's id of the node


class Launcher(ABC):
    """Builds the command and the environment that start the ranks of a job on one node.

    To add a launcher, add a module with a subclass to this package; sweep files then select it by `name`.
    """

    name: ClassVar[str]
    stale_prefixes: ClassVar[tuple[str, ...]] = ("SLURM_", "SLURMD_")  # libraries take these for "one of N tasks"

    def problem(self, machine: Machine) -> str | None:
        """Return why this launcher cannot start the ranks of `machine`, and what to use instead; None if it can."""
        return None

    @abstractmethod
    def command(self, settings: LaunchSettings, job: Path, rendezvous: NodeRendezvous) -> list[str]:
        """Return the command that starts the ranks of one node. `job`: the job file.

        Raises:
            InputError: this node cannot run the launcher.
        """

    def environment(
        self, inherited: Mapping[str, str], settings: LaunchSettings, rendezvous: NodeRendezvous
    ) -> dict[str, str]:
        """Return the inherited environment without stale launcher variables, plus what this job needs.

        CUDA_VISIBLE_DEVICES stays as Ray set it. A job that asked for no GPU sees none, so that `gpus: 0` means CPU.
        """
        machine = settings.machine
        stale = (*_STALE_PREFIXES, *self.stale_prefixes)
        kept = {k: v for k, v in inherited.items() if k not in _STALE and not k.startswith(stale)}
        kept["OMP_NUM_THREADS"] = str(cpus_per_rank(machine))
        kept["PYTHONUNBUFFERED"] = "1"
        kept.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")  # ranks end when a peer dies; only torchrun sets it
        if machine.gpus == 0:
            kept["CUDA_VISIBLE_DEVICES"] = ""
        paths = [str(settings.code), *kept.get("PYTHONPATH", "").split(":")]
        kept["PYTHONPATH"] = ":".join(dict.fromkeys(path for path in paths if path))
        return kept


def find_launchers() -> dict[str, Launcher]:
    """Return every launcher by name: the subclasses of `Launcher` in the modules of this package."""
    names = sorted(module.name for module in pkgutil.iter_modules(launchers.__path__))
    modules = [importlib.import_module(f"{launchers.__name__}.{name}") for name in names]
    values = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return {cls.name: cls() for cls in values if issubclass(cls, Launcher) and cls is not Launcher}


def trainer_command(settings: LaunchSettings, job: Path) -> list[str]:
    """Return the command of one rank."""
    program = settings.program or (sys.executable, "-m", "trainer")
    return [*program, "--config", str(job), "--out", str(settings.run_root)]


def cpus_per_rank(machine: Machine) -> int:
    return max(1, machine.cpus // machine.nproc)


def free_port() -> int:
    """Return a port of this machine on which nothing listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])

"""Launcher `srun`, for clusters where torchrun's rendezvous hangs: Slurm starts the ranks of each node in its own step."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from pgray.execution.launchers.base import Launcher, LaunchSettings, NodeRendezvous, cpus_per_rank, trainer_command
from trainer.errors import InputError

# Slurm numbers the tasks of a step; `environment` sets the rest of what torch reads. Slurm shows each task all GPUs
# of the allocation, but the job may only use those that Ray gave it.
_START_RANK = (
    "export LOCAL_RANK=$SLURM_LOCALID RANK=$((GROUP_RANK * LOCAL_WORLD_SIZE + SLURM_LOCALID)) "
    'CUDA_VISIBLE_DEVICES="$PGRAY_GPUS"; exec "$@"'
)


class Srun(Launcher):
    name = "srun"
    stale_prefixes = (  # what describes the step around this process; srun itself needs the rest
        "SLURM_STEP", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_TASK", "SLURM_CPU_BIND",
        "SLURM_CPUS_PER_TASK", "SLURM_DISTRIBUTION", "SLURM_MEM_", "SLURM_TRES",
    )  # fmt: skip

    def command(self, settings: LaunchSettings, job: Path, rendezvous: NodeRendezvous) -> list[str]:
        if "SLURM_JOB_ID" not in os.environ:  # srun would ask for a new allocation and wait for it
            fix = "this node is not in a Slurm allocation; start Ray inside one, or use launcher: torchrun"
            raise InputError("sweep", "launcher", self.name, fix)
        machine = settings.machine
        node = os.environ.get("SLURMD_NODENAME") or socket.gethostname().split(".")[0]
        start = [
            "srun", "--nodes=1", f"--nodelist={node}", f"--ntasks={machine.nproc}", f"--ntasks-per-node={machine.nproc}",
            f"--cpus-per-task={cpus_per_rank(machine)}", "--overlap", "--cpu-bind=none", "--export=ALL",
            "--kill-on-bad-exit=1", "--unbuffered", "sh", "-c", _START_RANK, "sh",
        ]  # fmt: skip
        return [*start, *trainer_command(settings, job)]

    def environment(
        self, inherited: Mapping[str, str], settings: LaunchSettings, rendezvous: NodeRendezvous
    ) -> dict[str, str]:
        kept = super().environment(inherited, settings, rendezvous)
        machine, (host, _, port) = settings.machine, rendezvous.endpoint.rpartition(":")
        return kept | {
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
            "WORLD_SIZE": str(machine.world_size),
            "LOCAL_WORLD_SIZE": str(machine.nproc),
            "GROUP_RANK": str(rendezvous.rank),
            "PGRAY_GPUS": kept.get("CUDA_VISIBLE_DEVICES", ""),
        }

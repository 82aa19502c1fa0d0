"""How the trainer is started: the command line and the environment of one job's processes.

torchrun on one node; multi-node and srun launchers are still to come and belong here.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.config import Machine

_ROOT = Path(__file__).resolve().parent.parent
# Left by Ray, by an outer torchrun or by Slurm, these make torchrun's ranks join the wrong group or hang.
_STALE_PREFIXES = ("RAY_", "TORCHELASTIC_", "PGRAY_")
_STALE = frozenset({"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) | {
    f"{group}_{what}" for group in ("LOCAL", "GROUP", "ROLE") for what in ("RANK", "WORLD_SIZE", "NAME")
}


def trainer_command(machine: Machine, start: Sequence[str] | None, job: Path, out: Path) -> list[str]:
    """The command of one job.

    Args:
        machine: its `nproc` ranks.
        start: stands in for torchrun and the trainer (tests put a fast fake trainer here); None for the real one.
        job: the job file. out: the run folder.
    """
    if start is None:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={machine.nproc}"]
        start += ["-m", "trainer"]
    return [*start, "--config", str(job), "--out", str(out)]


def environment(inherited: Mapping[str, str], machine: Machine) -> dict[str, str]:
    """The inherited environment without stale launcher variables, with what this job needs.

    CUDA_VISIBLE_DEVICES stays as Ray set it; a job that asked for no GPU sees none, so that `gpus: 0` means CPU.
    """
    kept = {k: v for k, v in inherited.items() if k not in _STALE and not k.startswith(_STALE_PREFIXES)}
    kept["OMP_NUM_THREADS"] = str(max(1, machine.cpus // machine.nproc))
    kept["PYTHONUNBUFFERED"] = "1"
    if machine.gpus == 0:
        kept["CUDA_VISIBLE_DEVICES"] = ""
    if _ROOT.name not in ("site-packages", "dist-packages"):
        paths = [str(_ROOT), *kept.get("PYTHONPATH", "").split(":")]
        kept["PYTHONPATH"] = ":".join(dict.fromkeys(path for path in paths if path))
    return kept

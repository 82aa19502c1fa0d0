"""Reserve CPUs and GPUs of this machine by file locks, so that two sweeps never use the same ones.

Every sweep that starts a Ray of its own takes its share before, and Ray is told of no more. The kernel releases a lock when
the last process that holds it dies. Locks are named after CPU numbers and GPU UUIDs, in the folder for temporary files.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.records.text import count_of
from trainer.run.config import Machine

_FOLDER = "pgray-locks"


@dataclass(frozen=True)
class Share:
    """CPUs by number, and GPUs as CUDA_VISIBLE_DEVICES names them. `locks`: open files, which hold them."""

    cpus: Sequence[str]
    gpus: Sequence[str]
    locks: Sequence[int] = ()


def whole_machine() -> Share:
    """Return what this process may use, as Ray counts it. It reserves nothing."""
    from ray._private.accelerators import get_accelerator_manager_for_resource
    from ray._private.utils import get_num_cpus

    manager = get_accelerator_manager_for_resource("GPU")
    num_gpus = manager.get_current_node_num_accelerators()
    gpus = manager.get_current_process_visible_accelerator_ids()
    gpus = [str(i) for i in range(num_gpus)] if gpus is None else list(gpus)[:num_gpus]
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    num_cpus = int(get_num_cpus())
    return Share([str(i) for i in [*own, *range(num_cpus)][:num_cpus]], gpus)


def try_reserve(whole: Share, machine: Machine, most_jobs: int, holder: dict[str, object]) -> Share | None:
    """Reserve what up to `most_jobs` jobs need at once; None if not even one of them fits beside the other sweeps.

    Args:
        holder: written into the locks, for people.
    """
    folder = _lock_folder()
    with _one_at_a_time(folder):
        cpus = [(cpu, lock) for cpu in whole.cpus if (lock := _try_lock(folder / f"cpu-{cpu}")) is not None]
        names = _gpu_names(whole.gpus) if machine.gpus else {}
        gpus = [(gpu, lock) for gpu, name in names.items() if (lock := _try_lock(folder / f"gpu-{name}")) is not None]
        num_jobs = min(most_jobs, len(cpus) // machine.cpus, len(gpus) // machine.gpus if machine.gpus else most_jobs)
        kept = [*cpus[: num_jobs * machine.cpus], *gpus[: num_jobs * machine.gpus]]
        locks = [lock for _, lock in kept]
        for _, lock in (*cpus, *gpus):
            if lock not in locks:
                os.close(lock)
        for lock in locks:
            with contextlib.suppress(OSError):  # another user's file, which may only be read
                os.truncate(lock, 0)
                os.write(lock, json.dumps(holder).encode())
    if num_jobs < 1:
        return None
    names_kept = [name for name, _ in kept]
    num_cpus = num_jobs * machine.cpus
    return Share(names_kept[:num_cpus], names_kept[num_cpus:], locks)


def why_waiting(whole: Share, machine: Machine) -> str:
    """Say what a sweep waits for, and which other sweeps use it."""
    folder, users = _lock_folder(), dict[str, None]()
    names = [*(f"cpu-{cpu}" for cpu in whole.cpus), *(f"gpu-{gpu}" for gpu in _gpu_names(whole.gpus).values())]
    for path in (folder / name for name in names):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), _one_at_a_time(folder):
            if path.exists() and (lock := _try_lock(path)) is None:
                note = json.loads(path.read_text())
                users[f"{note['run']} (process {note['pid']})"] = None
            elif path.exists() and lock is not None:
                os.close(lock)
    needs = [count_of(machine.gpus, "GPU")] * bool(machine.gpus) + [count_of(machine.cpus, "CPU")]
    who = ", ".join(users) or "another sweep"
    return f"Waiting for {' and '.join(needs)} of this machine, in use by {who}."


def _lock_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / _FOLDER
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):  # another user's
        folder.chmod(0o1777)
    return folder


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep others from taking locks meanwhile: of two sweeps that each took half, neither could start."""
    lock = _open(folder / "all")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _try_lock(path: Path) -> int | None:
    lock = _open(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _open(path: Path) -> int:
    """Open a lock's file, and create it for all users. Linux refuses O_CREAT on another user's file in such a folder."""
    try:
        return os.open(path, os.O_RDWR)
    except PermissionError:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            with contextlib.suppress(OSError):
                os.fchmod(lock, 0o666)  # whatever the umask
            return lock
        return _open(path)


def _gpu_names(gpus: Sequence[str]) -> dict[str, str]:
    """Map GPUs to UUIDs where NVIDIA's tool knows them: inside a container or a Slurm job, indices start at 0 again."""
    if not gpus:
        return {}
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    uuids: dict[str, str] = {}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        uuids = dict(line.split(", ", 1) for line in listed.splitlines() if ", " in line)
    return {gpu: uuids.get(gpu, gpu).replace("/", "_") for gpu in gpus}

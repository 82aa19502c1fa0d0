"""Find and kill the processes of a job by a token in their environment.

Parents die and children are re-parented, but a process keeps the environment that it was started with. So torchrun's
ranks, each in its own session, can be found when nothing else leads to them. Zombies are not counted: they have no
environment and hold no resources.
"""

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from pgray.store.exit_record import KilledProcess
from pgray.store.process_records import ProcessIdentity

JOB_TOKEN = "PGRAY_JOB_TOKEN"
RUN_DIR = "PGRAY_RUN_DIR"
NODE_RANK = "PGRAY_NODE_RANK"


def of_job(token: str, node_rank: int | None = None) -> list[psutil.Process]:
    """Find the processes of a job, or only those of one node: in tests several nodes share a machine."""
    return _find_marked({JOB_TOKEN: token} | ({} if node_rank is None else {NODE_RANK: str(node_rank)}))


def of_run(run_root: str) -> list[psutil.Process]:
    return _find_marked({RUN_DIR: run_root})


def _find_marked(marks: dict[str, str]) -> list[psutil.Process]:
    """Find the processes that were started with these variables in their environment."""
    return _find(lambda process: marks.items() <= process.environ().items())


def _find(matches: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Find all other live processes that match."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and matches(process) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def of_ray(scratch: Path) -> list[psutil.Process]:
    """Find the processes of the Ray whose session is below `scratch`.

    Its servers and workers end with the process that started them, but two agents were seen to outlive it by 60 s. Agents
    overwrite their environment, so all are found by the options in their command lines or, once they have overwritten
    these too, by the paths of their open log files.
    """
    option = re.compile(rf"^--[\w-]+={re.escape(str(scratch))}(?:/|$)")

    def matches(process: psutil.Process) -> bool:
        words = process.cmdline()
        if any(map(option.search, words)):
            return True
        has_new_title = bool(words) and words[0].startswith("ray::")
        return has_new_title and any(file.path.startswith(f"{scratch}/") for file in process.open_files())

    return _find(matches)


def kill_all(
    search: Callable[[], list[psutil.Process]], timeout_s: float = 10.0
) -> tuple[list[KilledProcess], list[int]]:
    """SIGKILL everything that `search` finds, until it finds nothing.

    Args:
        search: called repeatedly, since a process may fork while it is being killed.
        timeout_s: when to stop trying; a process in uninterruptible sleep cannot be killed.
    Returns:
        the processes that were killed, and the pids that still live after the timeout.
    """
    killed: dict[int, KilledProcess] = {}
    deadline = time.monotonic() + timeout_s
    while processes := search():
        if time.monotonic() > deadline:
            return list(killed.values()), [process.pid for process in processes]
        for process in processes:
            with contextlib.suppress(psutil.Error):
                killed.setdefault(process.pid, {"pid": process.pid, "command": " ".join(process.cmdline())[:200]})
                process.kill()
        time.sleep(0.02)
    return list(killed.values()), []


def own_identity() -> ProcessIdentity:
    return identity_of(os.getpid())


def identity_of(pid: int) -> ProcessIdentity:
    return ProcessIdentity(pid, psutil.Process(pid).create_time(), socket.gethostname(), _pid_namespace())


def is_local(identity: ProcessIdentity) -> bool:
    """Whether this process is one of those that can be seen from here, if it still runs."""
    return identity.host == socket.gethostname() and identity.namespace == _pid_namespace()


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether this process still runs. Always False on another machine."""
    try:
        process = psutil.Process(identity.pid)
        # Creation times are derived from the system clock, which may be adjusted in between.
        is_same = abs(process.create_time() - identity.created) < 5
        return identity.host == socket.gethostname() and is_same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, TypeError, ValueError):
        return False


def _pid_namespace() -> str:
    """Identify the pid namespace: containers on one machine may share a host name but number processes differently."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""

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


def find_ray_leftovers(driver: ProcessIdentity) -> list[psutil.Process]:
    """Find what a dead driver's own Ray left on this machine.

    Ray's server and workers end with the driver that started them, but two of its agents were seen to outlive a SIGKILL
    of the driver by 60 s. Agents overwrite their environment, so they are found by Ray's session, whose name contains the
    driver's pid: in their command line, or, once they have overwritten that too, in the paths of their open log files.
    """
    is_ours = driver.host == socket.gethostname() and driver.namespace == _pid_namespace()
    if not is_ours or not isinstance(driver.pid, int) or psutil.pid_exists(driver.pid):
        return []
    session = re.compile(rf"/session_[0-9_-]+_{driver.pid}/logs/")
    option = re.compile(rf"^--session-dir=.*/session_[0-9_-]+_{driver.pid}$")

    def is_of_session(process: psutil.Process) -> bool:
        words = process.cmdline()
        is_agent = bool(words) and words[0].startswith("ray::")
        return any(map(option.search, words)) or (
            is_agent and any(session.search(f.path) for f in process.open_files())
        )

    return _find(is_of_session)


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
    return ProcessIdentity(os.getpid(), psutil.Process().create_time(), socket.gethostname(), _pid_namespace())


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

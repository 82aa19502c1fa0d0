"""Finding and ending the processes of a job by a token in their environment.

Parents die and children are re-parented, but the environment a process was started with stays: torchrun's ranks, each in
a session of its own, are found by it when nothing else leads to them. A dead process that nobody has collected yet
(a zombie) has no environment and holds nothing; it is not counted.
"""

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

JOB_TOKEN = "PGRAY_JOB_TOKEN"
RUN_DIR = "PGRAY_RUN_DIR"
NODE_RANK = "PGRAY_NODE_RANK"


def find(matches: Callable[[Mapping[str, str]], bool]) -> list[psutil.Process]:
    """Every other live process whose starting environment matches."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and matches(process.environ()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def of_job(token: str, node_rank: int | None = None) -> list[psutil.Process]:
    """The processes of a job; with `node_rank` only that node's, since nodes of a test share a machine."""
    return find(
        lambda environment: (
            environment.get(JOB_TOKEN) == token and (node_rank is None or environment.get(NODE_RANK) == str(node_rank))
        )
    )


def of_run(run_root: str) -> list[psutil.Process]:
    return find(lambda environment: environment.get(RUN_DIR) == run_root)


def find_ray_leftovers(driver: Mapping[str, Any]) -> list[psutil.Process]:
    """What a dead driver's own Ray left on this machine.

    Ray's server and workers end with the driver that started them; two agents were seen to outlive its SIGKILL by 60 s.
    They write over their environment, and are known by the session that they belong to, which Ray names after the
    driver's pid: from their command line, and once they have written over that from the logs that they hold open.
    """
    pid = driver.get("pid")
    is_ours = is_local(driver) and driver.get("namespace") == _pid_namespace()
    if not is_ours or not isinstance(pid, int) or psutil.pid_exists(pid):
        return []
    session = re.compile(rf"/session_[0-9_-]+_{pid}/logs/")
    option = re.compile(rf"^--session-dir=.*/session_[0-9_-]+_{pid}$")
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            words = process.cmdline()
            is_agent = words[:1] and words[0].startswith("ray::")
            if any(map(option.search, words)) or (
                is_agent and any(session.search(f.path) for f in process.open_files())
            ):
                found.append(process)
    return found


def end_all(
    search: Callable[[], list[psutil.Process]], patience_s: float = 10.0
) -> tuple[list[dict[str, Any]], list[int]]:
    """SIGKILL all that `search` finds, again and again until it finds nothing.

    Args:
        search: lists what must end; it is called anew each time, since a process may fork while it is being ended.
        patience_s: when to give up; a process in uninterruptible sleep cannot be ended.
    Returns:
        what was killed, as {pid, command}; and the pids that outlived the patience.
    """
    killed: dict[int, dict[str, Any]] = {}
    deadline = time.monotonic() + patience_s
    while processes := search():
        if time.monotonic() > deadline:
            return list(killed.values()), [process.pid for process in processes]
        for process in processes:
            with contextlib.suppress(psutil.Error):
                killed.setdefault(process.pid, {"pid": process.pid, "command": " ".join(process.cmdline())[:200]})
                process.kill()
        time.sleep(0.02)
    return list(killed.values()), []


def identity() -> dict[str, Any]:
    """This process as `is_alive` knows it again: pids are given out anew, and differ from machine to machine."""
    created = psutil.Process().create_time()
    return {"pid": os.getpid(), "created": created, "host": socket.gethostname(), "namespace": _pid_namespace()}


def is_local(identity: Mapping[str, Any]) -> bool:
    return bool(identity.get("host") == socket.gethostname())


def is_alive(identity: Mapping[str, Any]) -> bool:
    """Whether the process that wrote this identity still runs. Only true on its own machine."""
    try:
        process = psutil.Process(identity["pid"])
        # The system clock may be set in between; creation times are derived from it.
        is_same = abs(process.create_time() - identity["created"]) < 5
        return is_local(identity) and is_same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def _pid_namespace() -> str:
    """Containers on one machine may share a host name and see each other's processes under other numbers."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""

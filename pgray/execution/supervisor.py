"""Owns the process tree of one job: `python -m pgray.execution.supervisor SPEC.json`, with a lifeline on standard input.

torchrun starts each rank in a session of its own, and Ray kills a worker's direct children: torchrun can die before it
has ended its ranks, which then hold their GPUs for ever. So this process leaves the tree of the Ray worker that started it
(fork, setsid), and ends the job when it is over, when its time is up, on SIGTERM, or when the lifeline closes because the
worker died, however it died. It asks torchrun first (SIGTERM), waits, then kills every process that carries the job's
token in its environment. Should it be killed itself, torchrun gets SIGTERM from the kernel, and whoever started it kills
by token. `exit.json` is written last. Imports little: a job waits for this to start. A job on several nodes has one
supervisor on each (`exit_record.py`).

What it cannot do: end a process in uninterruptible sleep (a hung GPU driver). Such survivors are named in `exit.json`.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pgray.execution import processes
from pgray.store import exit_record
from trainer.records.files import read_json, write_json

_TICK_S = 0.1
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(spec_path: str) -> None:
    spec = json.loads(Path(spec_path).read_text())
    if os.fork():
        os._exit(0)  # the starter collects us at once; the child belongs to init
    os.setsid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphaned ranks become ours to collect, and leave no zombies
    started = time.time()
    write_json(Path(spec["pid_file"]), processes.identity())
    outcome = _run(spec, started)
    for link in spec["log_links"]:
        _copy_if_not_linked(Path(spec["log"]), Path(link))
    exit_record.write_exit(spec, {**outcome, "started_at": started, "ended_at": time.time()}, _lifeline_closed)


def is_replaced(driver: dict[str, Any] | None, driver_file: Path) -> bool:
    """Whether the driver that wanted a job is gone: its note in the run folder is another's, or none."""
    return driver is not None and read_json(driver_file) != driver


def _run(spec: dict[str, Any], started: float) -> dict[str, Any]:
    """Start the command, wait until it ends or must end, leave nothing behind, and say how it went."""
    is_told_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: is_told_to_stop.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    log = Path(spec["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    stop: str | None = None
    error: str | None = None
    code: int | None = None
    if is_replaced(spec["driver"], Path(spec["driver_file"])):
        # We have left our own note first, and a new driver looks for it after it has left its own: one sees the other.
        return {"code": None, "stop": "replaced", "error": None, "node": socket.gethostname()}
    with log.open("ab") as output:
        for link in spec["log_links"]:
            _link(log, Path(link))
        try:
            child = _start(spec, output)
        except OSError as problem:
            error = f"cannot start {spec['command'][0]}: {problem}"
        else:
            while child.poll() is None and stop is None:
                if _lifeline_closed():
                    stop = "lifeline"
                elif is_told_to_stop:
                    stop = "sigterm"
                elif Path(spec["kill_file"]).exists():
                    stop = "killed"
                elif time.time() > started + spec["timeout_s"]:
                    stop = "timeout"
                elif _is_silent(spec, started):
                    stop = "stall"
                elif exit_record.a_peer_failed(spec):
                    stop = exit_record.PEER
            if stop is not None:
                _ask_to_stop(child, spec["grace_s"])
            killed, survivors = processes.end_all(lambda: processes.of_job(spec["token"], spec["rank"]))
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(timeout=1)
            _collect_orphans()
    said = {"code": code, "stop": stop, "error": error, "node": socket.gethostname()}
    said |= {"timeout_s": spec["timeout_s"], "stall_s": spec["stall_s"]}
    return {**said, "killed": [], "survivors": []} if error else {**said, "killed": killed, "survivors": survivors}


def _start(spec: dict[str, Any], output: Any) -> subprocess.Popen[bytes]:
    marks = {processes.JOB_TOKEN: spec["token"], processes.RUN_DIR: spec["run_dir"]}
    marks[processes.NODE_RANK] = str(spec["rank"])
    return subprocess.Popen(
        spec["command"],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=spec["cwd"],
        env={**os.environ, **marks},
        start_new_session=True,
        preexec_fn=_die_with_parent(os.getpid()),
    )


def _is_silent(spec: dict[str, Any], started: float) -> bool:
    """Whether no log has grown for too long: a trainer prints every event, so silence means that nothing happens."""
    spoke = [Path(log).stat().st_mtime for log in spec["heard_logs"] if Path(log).exists()]
    return bool(spec["heard_logs"]) and time.time() > max(started, *spoke) + spec["stall_s"]


def _lifeline_closed() -> bool:
    """Wait a tick for the other end of standard input to close."""
    readable, _, _ = select.select([sys.stdin], [], [], _TICK_S)
    return bool(readable) and os.read(0, 64) == b""


def _ask_to_stop(child: subprocess.Popen[bytes], grace_s: float) -> None:
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=grace_s)


def _collect_orphans() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _die_with_parent(parent: int) -> Callable[[], None]:
    def before_exec() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)

    return before_exec


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _link(log: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a file system without hard links gets a copy at the end
        os.link(log, link)


def _copy_if_not_linked(log: Path, link: Path) -> None:
    with contextlib.suppress(OSError):
        if not link.exists():
            shutil.copyfile(log, link)


if __name__ == "__main__":
    main(sys.argv[1])

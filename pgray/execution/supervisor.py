"""Own the process tree of one node of a job: `python -m pgray.execution.supervisor SPEC.json`, stdin is the lifeline.

torchrun starts each rank in its own session, and Ray kills only a worker's direct children. So torchrun can die before
it has ended its ranks, which would then hold their GPUs for ever. The supervisor therefore leaves the process tree of the
Ray worker that started it (fork, setsid). It stops the job on SIGTERM, at its time limit, and when the lifeline closes
because the worker died. It asks torchrun first (SIGTERM), waits, and then kills every process that carries the job's token
in its environment. If the supervisor itself is killed, the kernel sends SIGTERM to torchrun, and `NodeRunner` kills by
token. The exit record is written last.

A process in uninterruptible sleep (a hung GPU driver) cannot be killed; the exit record lists it among the survivors.

This module must import little, since every job waits for it to start.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

from pgray.execution import processes
from pgray.store.exit_record import ExitRecord, StopReason, has_failed_peer, write_exit
from pgray.store.process_records import Driver, SupervisorSpec, read_record
from trainer.records.files import write_json

_TICK_S = 0.1
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(spec_path: str) -> None:
    spec = SupervisorSpec.read(Path(spec_path))
    if spec is None:
        sys.exit(f"{spec_path}: not a supervisor's specification")
    if os.fork():
        os._exit(0)  # the starter waits for this process only; the child belongs to init
    os.setsid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphaned ranks become our children, so that no zombie remains
    started = time.time()
    write_json(Path(spec.pid_file), asdict(processes.own_identity()))
    record = replace(_run(spec, started), node=socket.gethostname(), timeout_s=spec.timeout_s, stall_s=spec.stall_s)
    for link in spec.log_links:
        _copy_if_not_linked(Path(spec.log), Path(link))
    write_exit(spec, replace(record, started_at=started, ended_at=time.time()), _is_lifeline_closed)


def is_replaced(driver: Driver | None, driver_file: Path) -> bool:
    """Whether the driver that launched a job no longer holds the run folder's lock."""
    return driver is not None and read_record(Driver, driver_file) != driver


def _run(spec: SupervisorSpec, started: float) -> ExitRecord:
    """Start the command, wait until it ends or must be stopped, kill what remains, and return how it ended."""
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Both sides write their file before they read the other's, so at least one notices: this supervisor its pid file,
    # a new driver its note.
    if is_replaced(spec.driver, Path(spec.driver_file)):
        return ExitRecord(stop=StopReason.REPLACED)
    log = Path(spec.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    stop: StopReason | None = None
    code: int | None = None
    with log.open("ab") as output:
        for link in spec.log_links:
            _link(log, Path(link))
        try:
            child = _start(spec, output)
        except OSError as problem:
            return ExitRecord(error=f"cannot start {spec.command[0]}: {problem}")
        while child.poll() is None and stop is None:
            stop = _reason_to_stop(spec, started, signals)
        if stop is not None:
            _ask_to_stop(child, spec.grace_s)
        killed, survivors = processes.kill_all(lambda: processes.of_job(spec.token, spec.rank))
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(timeout=1)
        _reap_orphans()
    return ExitRecord(code, stop, killed=killed, survivors=survivors)


def _start(spec: SupervisorSpec, output: IO[bytes]) -> subprocess.Popen[bytes]:
    marks = {processes.JOB_TOKEN: spec.token, processes.RUN_DIR: spec.run_dir, processes.NODE_RANK: str(spec.rank)}
    return subprocess.Popen(
        spec.command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=spec.cwd,
        env={**os.environ, **marks},
        start_new_session=True,
        preexec_fn=_die_with_parent(os.getpid()),
    )


def _reason_to_stop(spec: SupervisorSpec, started: float, signals: list[int]) -> StopReason | None:
    """Wait one tick. Return why the job must be stopped; None if it may continue."""
    if _is_lifeline_closed():
        return StopReason.LIFELINE
    if signals:
        return StopReason.SIGTERM
    if Path(spec.kill_file).exists():
        return StopReason.KILLED
    if time.time() > started + spec.timeout_s:
        return StopReason.TIMEOUT
    if _has_stalled(spec, started):
        return StopReason.STALL
    return StopReason.PEER if has_failed_peer(spec) else None


def _has_stalled(spec: SupervisorSpec, started: float) -> bool:
    """Whether no log has grown for too long. A trainer prints every event, so a silent one makes no progress."""
    printed = [Path(log).stat().st_mtime for log in spec.heard_logs if Path(log).exists()]
    return bool(spec.heard_logs) and time.time() > max(started, *printed) + spec.stall_s


def _is_lifeline_closed() -> bool:
    """Wait one tick for the other end of standard input to close."""
    readable, _, _ = select.select([sys.stdin], [], [], _TICK_S)
    return bool(readable) and os.read(0, 64) == b""


def _ask_to_stop(child: subprocess.Popen[bytes], grace_s: float) -> None:
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=grace_s)


def _reap_orphans() -> None:
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
    with contextlib.suppress(OSError):  # where the file system has no hard links, the log is copied at the end
        os.link(log, link)


def _copy_if_not_linked(log: Path, link: Path) -> None:
    with contextlib.suppress(OSError):
        if not link.exists():
            shutil.copyfile(log, link)


if __name__ == "__main__":
    main(sys.argv[1])

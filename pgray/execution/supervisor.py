"""Own the process tree of one node of a job: `python -m pgray.execution.supervisor SPEC.json`, stdin is the lifeline.

torchrun starts each rank in its own session, and Ray kills only a worker's direct children. So torchrun can die before
it has ended its ranks, which would then hold their GPUs forever. The supervisor therefore leaves the process tree of the
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

from pgray.execution import processes
from pgray.store.exit_record import ExitRecord, StopReason, has_failed_peer, write_exit
from pgray.store.process_records import Driver, SupervisorSpec, read_driver
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
    write_json(spec.node.supervisor, asdict(processes.own_identity()))
    record = replace(_run(spec, started), node=socket.gethostname(), timeout_s=spec.timeout_s, stall_s=spec.stall_s)
    for link in _trial_logs(spec):
        with contextlib.suppress(OSError):
            if not link.exists():  # the file system has no hard links
                shutil.copyfile(spec.node.log, link)
    write_exit(spec, replace(record, started_at=started, ended_at=time.time()), _is_lifeline_closed)


def is_replaced(driver: Driver | None, run_root: Path) -> bool:
    """Whether the driver that launched a job no longer holds the run folder's lock."""
    return driver is not None and read_driver(run_root) != driver


def _trial_logs(spec: SupervisorSpec) -> list[Path]:
    """Return the names that the job's log has in the folders of its trials; none for the other nodes' logs."""
    return [spec.run.trial(trial_id).log for trial_id in spec.trial_ids] if spec.rank == 0 else []


def _run(spec: SupervisorSpec, started: float) -> ExitRecord:
    """Start the command, wait until it ends or must be stopped, kill what remains, and return how it ended."""
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Both sides write their file before they read the other's, so at least one notices: this supervisor its pid file,
    # a new driver its note.
    if is_replaced(spec.driver, spec.run.root):
        return ExitRecord(stop=StopReason.REPLACED)
    marks = {processes.JOB_TOKEN: spec.token, processes.RUN_DIR: spec.run_dir, processes.NODE_RANK: str(spec.rank)}
    stop: StopReason | None = None
    code: int | None = None
    with spec.node.log.open("ab") as output:
        for link in _trial_logs(spec):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # where there are no hard links, the log is copied at the end
                os.link(spec.node.log, link)
        try:
            child = subprocess.Popen(
                spec.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=spec.node.root,
                env={**os.environ, **marks},
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid()),
            )
        except OSError as problem:
            return ExitRecord(error=f"cannot start {spec.command[0]}: {problem}")
    while child.poll() is None and stop is None:
        stop = _reason_to_stop(spec, started, signals)
    if stop is not None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=spec.grace_s)
    killed, survivors = processes.kill_all(lambda: processes.of_job(spec.token, spec.rank))
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = child.wait(timeout=1)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):  # orphaned ranks
            pass
    return ExitRecord(code, stop, killed=killed, survivors=survivors)


def _reason_to_stop(spec: SupervisorSpec, started: float, signals: list[int]) -> StopReason | None:
    """Wait one tick. Return why the job must be stopped; None if it may continue."""
    if _is_lifeline_closed():
        return StopReason.LIFELINE
    if signals:
        return StopReason.SIGTERM
    if spec.job.kill.exists():
        return StopReason.KILLED
    if time.time() > started + spec.timeout_s:
        return StopReason.TIMEOUT
    # A trainer prints every event, so a job whose logs do not grow makes no progress. Only its rank 0 prints.
    printed = [node.log.stat().st_mtime for node in spec.nodes if node.log.exists()]
    if spec.rank == 0 and time.time() > max(started, *printed) + spec.stall_s:
        return StopReason.STALL
    return StopReason.PEER if has_failed_peer(spec) else None


def _is_lifeline_closed() -> bool:
    """Wait one tick for the other end of standard input to close."""
    readable, _, _ = select.select([sys.stdin], [], [], _TICK_S)
    return bool(readable) and os.read(0, 64) == b""


def _die_with_parent(parent: int) -> Callable[[], None]:
    def before_exec() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)

    return before_exec


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1])

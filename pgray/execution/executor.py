"""What runs the jobs of a sweep: a Ray in a process of its own, or the Ray that this process already uses."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Protocol

import psutil

from pgray.execution import processes
from pgray.execution.cluster import TOKEN_FIX, Cluster, alive_nodes, check_answers, check_fits
from pgray.execution.job_events import JobEvents, JobProgress
from pgray.execution.launchers.base import LaunchSettings
from pgray.execution.orphans import end_ray
from pgray.execution.ray_host import Channel
from pgray.execution.scratch import Scratch, remove_abandoned
from pgray.store.process_records import RAY_FILE, RayHost
from trainer.errors import InputError
from trainer.records.files import write_json
from trainer.run.config import Machine

HOST_MODULE = "pgray.execution.ray_host"
RAY_LOG = "ray.log"
_REFUSED = b"InvalidAuthToken"  # what Ray prints when a cluster refuses its token
_ROOT = Path(__file__).resolve().parents[2]
_TICK_S = 0.1
_STOP_S = 4.0  # for Ray Tune to end by itself
_EXIT_S = 8.0  # for the host to end Ray and to exit
_SILENCE_S = 5.0  # after which the cluster is asked whether it is still there


class RayLostError(Exception):
    """Ray has died or cannot be reached; the message says what to do."""


@dataclass(frozen=True)
class RunNeeds:
    """What a run asks of Ray. `most_jobs`: that can be of use at once. `origin`: the sweep file."""

    run_root: Path
    machine: Machine
    most_jobs: int
    origin: str
    address: str | None = None  # None: a Ray on this machine


class Executor(Protocol):
    def connect(self, say: Callable[[str], None], is_interrupted: Callable[[], bool]) -> Cluster | None:
        """Return the cluster as soon as jobs can be started; None if interrupted before.

        Raises:
            InputError: no cluster answers, or a job fits on none of its nodes.
            RayLostError: Ray could not be started.
        """

    def run_jobs(self, settings: LaunchSettings, events: JobEvents) -> None:
        """Run the jobs that `events` hands out until its `poll` returns False. Raises RayLostError."""

    def close(self) -> None:
        """End what was started."""


def make_executor(needs: RunNeeds) -> Executor:
    remove_abandoned()
    ray = sys.modules.get("ray")
    return CallersRay(needs) if ray is not None and ray.is_initialized() else HostedRay(needs)


class CallersRay:
    """The Ray that this process uses already."""

    def __init__(self, needs: RunNeeds) -> None:
        self._needs = needs

    def connect(self, say: Callable[[str], None], is_interrupted: Callable[[], bool]) -> Cluster | None:
        cluster = alive_nodes()
        check_fits(cluster, self._needs.machine, self._needs.origin)
        return cluster

    def run_jobs(self, settings: LaunchSettings, events: JobEvents) -> None:
        from pgray.execution.ray_tune import run_jobs

        with Scratch() as scratch:
            run_jobs(settings, events, scratch.root)

    def close(self) -> None:
        """Nothing was started."""


class HostedRay:
    """A Ray in a process of its own (`pgray/execution/ray_host.py`), on this machine or connected to a cluster."""

    def __init__(self, needs: RunNeeds) -> None:
        self._needs = needs
        self._owned = Scratch()
        self._scratch = self._owned.root
        here, there = Pipe()
        self._channel, self._connection = Channel(here), here
        self._servers: list[psutil.Process] = []
        self._is_over = False
        spec = {
            **{"channel": there.fileno(), "scratch": str(self._scratch), "driver_pid": os.getpid()},
            **{"run": str(needs.run_root), "machine": needs.machine.model_dump(), "most_jobs": needs.most_jobs},
            **{"origin": needs.origin, "address": needs.address},
        }
        paths = [str(_ROOT), *os.environ.get("PYTHONPATH", "").split(":")]
        with (self._scratch / RAY_LOG).open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", HOST_MODULE, json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": ":".join(filter(None, paths))},
                pass_fds=[there.fileno(), self._owned.lock],  # the host holds the lock as long as it lives
                start_new_session=True,
            )
        there.close()
        self._host = RayHost(
            **vars(processes.identity_of(self._process.pid)), scratch=str(self._scratch), run=str(needs.run_root)
        )
        write_json(needs.run_root / RAY_FILE, asdict(self._host))

    def connect(self, say: Callable[[str], None], is_interrupted: Callable[[], bool]) -> Cluster | None:
        while not is_interrupted():
            message = self._receive()
            if self._needs.address and _REFUSED in (self._scratch / RAY_LOG).read_bytes():
                raise InputError("--address", "address", self._needs.address, TOKEN_FIX)  # Ray would go on trying
            if "waiting" in message:
                say(message["waiting"])
            elif "ready" in message:
                self._servers = [p for pid in message["servers"] if (p := _process(pid)) is not None]
                return Cluster(tuple((cpus, gpus) for cpus, gpus in message["ready"]))
        return None

    def run_jobs(self, settings: LaunchSettings, events: JobEvents) -> None:
        try:
            self._channel.send(settings=settings.to_json())
            self._answer_calls(events)
        except (EOFError, OSError) as error:
            raise self._lost(f"its process ended ({error or type(error).__name__})") from None
        finally:
            if not self._is_over:
                self._stop()

    def close(self) -> None:
        self._stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_EXIT_S)
        end_ray(self._host)
        self._process.wait()
        self._owned.close()
        if self._needs.run_root.is_dir():
            (self._needs.run_root / RAY_FILE).unlink(missing_ok=True)

    def _answer_calls(self, events: JobEvents) -> None:
        """Answer what the host asks. While it asks nothing, do the regular work and look whether it still lives."""
        heard_at, stop_at = time.monotonic(), float("inf")
        while time.monotonic() < stop_at:
            message = self._receive()
            if message.get("over"):
                self._is_over = True
                return
            if "call" in message:
                heard_at, arguments = time.monotonic(), message["arguments"]
                if message["call"] == "on_progress":
                    arguments[1] = JobProgress(**arguments[1])
                answer = getattr(events, message["call"])(*arguments)
                self._channel.send(answer=answer)
                goes_on = answer if message["call"] == "poll" else True
            else:
                goes_on = events.poll()
            if not goes_on:
                stop_at = min(stop_at, time.monotonic() + _STOP_S)
            if stop_at == float("inf") and time.monotonic() > heard_at + _SILENCE_S and self._needs.address:
                try:
                    check_answers(self._needs.address)
                except InputError:
                    raise self._lost(f"no answer at {self._needs.address}") from None

    def _receive(self) -> dict[str, Any]:
        """Return a message; {} if there is none. Raises what the host reports, and RayLostError if Ray has died."""
        try:
            message = self._channel.receive(_TICK_S) or {}
        except (EOFError, OSError):
            raise self._lost("its process ended") from None
        if "refused" in message:
            raise InputError(*message["refused"])
        if "failed" in message:
            raise self._lost(message["failed"])
        for server in self._servers:
            if not message and not (server.is_running() and server.status() != psutil.STATUS_ZOMBIE):
                raise self._lost(f"its server (process {server.pid}) ended")
        return message

    def _lost(self, why: str) -> RayLostError:
        log = self._needs.run_root / RAY_LOG
        with contextlib.suppress(OSError):
            if log.parent.is_dir():
                shutil.copyfile(self._scratch / RAY_LOG, log)
        return RayLostError(f"Ray was lost: {why}; {log} has its output; run the same command again to resume")

    def _stop(self) -> None:
        """Close the lifeline, so that the host ends Ray, and with it the jobs' lifelines."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._connection.close()
        if self._process.poll() is not None:
            end_ray(self._host)


def _process(pid: int) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid)
    return None

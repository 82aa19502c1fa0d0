"""The process in which Ray runs for a driver: `python -m pgray.execution.ray_host SPEC`.

Ray's client library may block for a minute, print, replace signal handlers or exit when its server is gone. So it gets a
process and a session of its own: the driver stays responsive whatever happens to Ray, and a signal to the driver's process
group does not reach Ray. The two exchange messages through a pipe; what Ray prints goes into a file.

Standard input is the lifeline. When the driver closes it or dies, this process ends Ray, waits until the run's jobs have
ended, so that its share of the machine stays reserved, and exits.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from pgray.execution import machine_share, processes
from pgray.execution.cluster import Cluster, check_fits, join, prepare_ray, start_here
from pgray.execution.job_events import JobProgress
from pgray.execution.launchers.base import LaunchSettings
from trainer.errors import InputError
from trainer.run.config import Machine

_WAIT_S = 0.5
_JOBS_END_S = 60.0


class Channel:
    """Sends and receives dictionaries of plain values. Raises EOFError or OSError when the other side is gone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, **message: Any) -> None:
        self._connection.send_bytes(json.dumps(message).encode())

    def receive(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """Return the next message; None if there is none within the time."""
        if not self._connection.poll(timeout_s):
            return None
        message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        return message


class RemoteEvents:
    """The driver's `JobEvents`, called through the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def next_job(self, slots: int) -> str | None:
        job_id: str | None = self._call("next_job", slots)
        return job_id

    def on_started(self, job_id: str) -> None:
        self._call("on_started", job_id)

    def on_progress(self, job_id: str, progress: JobProgress) -> None:
        self._call("on_progress", job_id, asdict(progress))

    def on_ended(self, job_id: str, worker_error: str | None) -> None:
        self._call("on_ended", job_id, worker_error)

    def poll(self) -> bool:
        return bool(self._call("poll"))

    def _call(self, name: str, *arguments: Any) -> Any:
        self._channel.send(call=name, arguments=arguments)
        return (self._channel.receive() or {}).get("answer")


def main(spec_text: str) -> None:
    spec = json.loads(spec_text)
    scratch = Path(spec["scratch"])
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the driver decides when to end
    threading.Thread(target=_watch_lifeline, args=(spec["run"], scratch), daemon=True).start()
    channel = Channel(Connection(spec["channel"]))
    try:
        _serve(spec, channel, scratch)
    except InputError as error:
        channel.send(refused=[error.origin, error.key, error.value, error.fix])
    except (EOFError, BrokenPipeError, ConnectionResetError):
        threading.Event().wait()  # the driver is gone: the other thread ends this process
    except Exception as error:
        channel.send(failed=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
        raise


def _serve(spec: dict[str, Any], channel: Channel, scratch: Path) -> None:
    prepare_ray()
    address, machine = spec["address"], Machine(**spec["machine"])
    cluster = join(address) if address else start_here(_reserve(spec, machine, channel), scratch)
    check_fits(cluster, machine, spec["origin"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray has set a handler
    servers = [child.pid for child in psutil.Process().children() if child.name() in ("gcs_server", "raylet")]
    channel.send(ready=cluster.nodes, servers=servers)
    settings = LaunchSettings.from_json((channel.receive() or {})["settings"])
    import ray

    from pgray.execution.ray_tune import run_jobs

    run_jobs(settings, RemoteEvents(channel), scratch)
    channel.send(over=True)
    ray.shutdown()


def _reserve(spec: dict[str, Any], machine: Machine, channel: Channel) -> machine_share.Share:
    """Reserve a share of this machine; wait while other sweeps use it."""
    whole, is_announced = machine_share.whole_machine(), False
    check_fits(Cluster(((len(whole.cpus), len(whole.gpus)),)), machine, spec["origin"])
    while True:
        holder = {"run": spec["run"], "pid": spec["driver_pid"]}
        share = machine_share.try_reserve(whole, machine, spec["most_jobs"], holder)
        if share is not None:
            return share
        if not is_announced:
            channel.send(waiting=machine_share.why_waiting(whole, machine))
            is_announced = True
        time.sleep(_WAIT_S)


def _watch_lifeline(run: str, scratch: Path) -> None:
    while os.read(0, 64):
        pass
    processes.kill_all(lambda: processes.of_ray(scratch))
    shutil.rmtree(scratch, ignore_errors=True)
    deadline = time.monotonic() + _JOBS_END_S
    while processes.of_run(run) and time.monotonic() < deadline:
        time.sleep(0.2)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])

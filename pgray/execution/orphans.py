"""Ending what an earlier driver left behind on this machine: supervisors first, then anything with the run's mark."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psutil

from pgray.execution import processes
from pgray.execution.run_lock import dead_drivers
from trainer.records.files import read_json
from trainer.records.layout import JobLayout, RunLayout


def end_orphans(layout: RunLayout, grace_s: float, last_driver: Mapping[str, Any] | None = None) -> int:
    """End every process of this run folder. Call it only while holding the run's lock.

    A supervisor whose driver died is ending its job by itself; it gets the time that this takes, so that it can say on
    disk how the job ended.

    Args:
        layout: the run folder.
        grace_s: how long a job may take to end by itself.
        last_driver: the note of the driver that died while it held the lock, if one did.
    Returns:
        How many processes there were.
    """
    supervisors = list(_supervisors(layout))
    for identity in supervisors:
        with contextlib.suppress(psutil.Error):
            psutil.Process(identity["pid"]).terminate()
    deadline = time.monotonic() + grace_s + 5
    while (alive := [s for s in supervisors if processes.is_alive(s)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for identity in alive:
        with contextlib.suppress(psutil.Error):
            psutil.Process(identity["pid"]).kill()
    killed, _ = processes.end_all(
        lambda: [
            *processes.of_run(str(layout.root)),
            *(process for driver in dead_drivers(last_driver) for process in processes.find_ray_leftovers(driver)),
        ]
    )
    return len(supervisors) + len(killed)


def end_job(token: str | None) -> None:
    """Kill every process of one job, if it ever had any."""
    if token is not None:
        processes.end_all(lambda: processes.of_job(token))


def _supervisors(layout: RunLayout) -> Iterator[dict[str, Any]]:
    for folder in layout.jobs.glob("*"):
        if JobLayout(folder).exit.exists():
            continue
        for file in folder.glob("supervisor*.json"):  # one for each node of a job
            if processes.is_alive(identity := read_json(file)):
                yield identity

"""End the processes that an earlier driver left on this machine: first its supervisors, then all marked processes."""

import contextlib
import time
from collections.abc import Sequence

import psutil

from pgray.execution import processes
from pgray.store.process_records import Driver, ProcessIdentity, SupervisorSpec, read_record
from trainer.records.layout import JobLayout, RunLayout


def end_orphans(layout: RunLayout, grace_s: float, dead_drivers: Sequence[Driver] = ()) -> int:
    """End every process of this run folder. Call it only while holding the run's lock.

    A supervisor whose driver died is already ending its job; it gets the time to do so and to write the exit record.

    Args:
        grace_s: how long a job may take to end by itself.
        dead_drivers: drivers that died while they held the lock; their Ray is ended too.
    Returns:
        the number of processes ended.
    """
    files = (file for file in layout.jobs.glob("*/supervisor*.json") if not JobLayout(file.parent).exit.exists())
    identities = (read_record(ProcessIdentity, file) for file in files)
    supervisors = [identity for identity in identities if identity and processes.is_alive(identity)]
    for identity in supervisors:
        with contextlib.suppress(psutil.Error):
            psutil.Process(identity.pid).terminate()
    deadline = time.monotonic() + grace_s + 5
    while (alive := [s for s in supervisors if processes.is_alive(s)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for identity in alive:
        with contextlib.suppress(psutil.Error):
            psutil.Process(identity.pid).kill()
    killed, _ = processes.kill_all(
        lambda: [
            *processes.of_run(str(layout.root)),
            *(process for driver in dead_drivers for process in processes.find_ray_leftovers(driver)),
        ]
    )
    return len(supervisors) + len(killed)


def end_job(records: JobLayout) -> None:
    """Kill every process of one job, if it was ever started."""
    spec = SupervisorSpec.read(records.launch)
    if spec is not None:
        processes.kill_all(lambda: processes.of_job(spec.token))

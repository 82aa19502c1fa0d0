"""End the processes that an earlier driver left on this machine: first its supervisors, then all marked processes."""

import contextlib
import shutil
import time
from pathlib import Path

import psutil

from pgray.execution import processes
from pgray.store.process_records import RAY_FILE, ProcessIdentity, RayHost, SupervisorSpec, is_copied, read_record
from trainer.records.layout import JobLayout, RunLayout


def end_orphans(layout: RunLayout, grace_s: float) -> int:
    """End every process of this run folder, and the Ray of a dead driver. Call it only while holding the run's lock.

    A supervisor whose driver died is already ending its job; it gets the time to do so and to write the exit record. The
    records in a copy of a run folder name processes of the original, which are left alone.

    Args:
        grace_s: how long a job may take to end by itself.
    Returns:
        the number of processes ended.
    """
    host = read_record(RayHost, layout.root / RAY_FILE)
    num_of_ray = end_ray(host) if host and not is_copied(host.run, layout.root) else 0
    (layout.root / RAY_FILE).unlink(missing_ok=True)
    jobs = (JobLayout(folder) for folder in layout.jobs.glob("*"))
    files = (file for job in jobs if _may_run(job, layout) for file in job.root.glob("supervisor*.json"))
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
    killed, _ = processes.kill_all(lambda: processes.of_run(str(layout.root)))
    return num_of_ray + len(supervisors) + len(killed)


def _may_run(job: JobLayout, layout: RunLayout) -> bool:
    """Whether a job may still have processes, of this folder and not of one that it is a copy of."""
    spec = SupervisorSpec.read(job.launch)
    return not job.exit.exists() and not (spec and is_copied(spec.run_dir, layout.root))


def end_ray(host: RayHost) -> int:
    """End a host that still lives, its Ray and its temporary files. Returns how many processes were ended."""
    if not processes.is_local(host):
        return 0
    if processes.is_alive(host):
        with contextlib.suppress(psutil.Error):
            psutil.Process(host.pid).kill()
    killed, _ = processes.kill_all(lambda: processes.of_ray(Path(host.scratch)))
    shutil.rmtree(host.scratch, ignore_errors=True)
    return len(killed)


def end_run(layout: RunLayout) -> None:
    """Kill every job of a run on this machine. Their supervisors write nothing if the run folder has gone."""
    processes.kill_all(lambda: processes.of_run(str(layout.root)))


def end_job(records: JobLayout) -> None:
    """Kill every process of one job, if it was ever started."""
    spec = SupervisorSpec.read(records.launch)
    if spec is not None:
        processes.kill_all(lambda: processes.of_job(spec.token))

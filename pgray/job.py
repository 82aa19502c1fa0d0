"""One job inside a Ray worker: start its supervisor, follow its events, report progress, end when it ends.

The worker's own life is the job's lifeline: it holds the write end of a pipe that the supervisor reads, so that whatever
ends the worker ends the job. It polls and never blocks in a wait, or Ray could not stop it. How the job ended is left on
disk (`exit.json`, records, log) and read by the driver; nothing is returned through Ray.
"""

import json
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgray import launch, lock, processes, supervisor
from trainer.config import Machine
from trainer.job import Job, load_job
from trainer.layout import JobLayout, RunLayout, TrialLayout, write_json, write_text

_POLL_S = 0.2
_REPORT_S = 2.0


@dataclass(frozen=True)
class Launch:
    """What all jobs of a sweep have in common. Paths are absolute: a worker's folder is not the driver's.

    `start` stands in for torchrun and the trainer in tests; `grace_s` is how long a job may take to end by itself,
    `stall_s` how long it may say nothing; `driver` is the note that the driver left in the run folder (lock.py).
    """

    run_root: Path
    machine: Machine
    start: tuple[str, ...] | None = None
    grace_s: float = 10.0
    timeout_s: float | None = None
    stall_s: float = 900.0
    driver: dict[str, Any] | None = None

    def job_timeout_s(self, job: Job) -> float:
        """Generous: a hung job must end, a slow one must not. Validation and compilation are off the training clock."""
        if self.timeout_s is not None:
            return self.timeout_s
        return 2 * job.config.train.wallclock_s + 1800 + 1200 * len(job.trials)


def run_job(config: Mapping[str, Any], shared: Launch) -> None:
    """The Tune trainable: runs the job `config["job_id"]` to its end, reporting progress every few seconds."""
    from ray import tune

    follow_job(load_job(RunLayout(shared.run_root).job(config["job_id"]).job), shared, tune.report)


def write_job(job: Job, layout: RunLayout) -> None:
    """Put a job where its worker and its trainer find it."""
    write_text(layout.job(job.job_id).job, job.model_dump_json(indent=1) + "\n")


def follow_job(job: Job, shared: Launch, report: Callable[[dict[str, Any]], None]) -> None:
    """Start a job (see `write_job`) and stay until it is over; `report` gets plain values at most every two seconds."""
    layout = RunLayout(shared.run_root)
    records = layout.job(job.job_id)
    if supervisor.is_replaced(shared.driver, shared.run_root / lock.OWNER):
        return  # before anything is touched
    progress = _Progress(job, layout)
    token, lifeline = _start_supervisor(job, shared, layout)
    reported = 0.0
    try:
        while not records.exit.exists():
            if not _is_held(lifeline) and not records.exit.exists():
                _reap(token, records)
                break
            if time.monotonic() > reported + _REPORT_S and progress.has_news():
                report(progress.metrics())
                reported = time.monotonic()
            time.sleep(_POLL_S)
    finally:
        os.close(lifeline)


def make_room(trial: TrialLayout) -> None:
    """Move what an earlier attempt left in a trial's folder to `attempt-N/`."""
    left = (
        [path for path in trial.root.iterdir() if not path.name.startswith("attempt-")] if trial.root.is_dir() else []
    )
    if left:
        number = 1 + sum(path.name.startswith("attempt-") for path in trial.root.iterdir())
        attempt = trial.root / f"attempt-{number}"
        attempt.mkdir()
        for path in left:
            path.rename(attempt / path.name)


def _start_supervisor(job: Job, shared: Launch, layout: RunLayout) -> tuple[str, int]:
    """Write the job down and start its supervisor. Returns the job's token and the lifeline to hold open."""
    records = layout.job(job.job_id)
    for trial in job.trials:
        make_room(layout.trial(trial.trial_id))
        write_text(layout.trial(trial.trial_id).config, trial.config.model_dump_json(indent=1) + "\n")
    token = uuid.uuid4().hex
    spec = {
        "token": token,
        "run_dir": str(shared.run_root),
        "command": launch.trainer_command(shared.machine, shared.start, records.job, shared.run_root),
        "cwd": str(records.root),
        "log": str(records.log),
        "log_links": [str(layout.trial(trial.trial_id).log) for trial in job.trials],
        "pid_file": str(records.supervisor),
        "exit_file": str(records.exit),
        "kill_file": str(records.kill),
        "driver": shared.driver,
        "driver_file": str(shared.run_root / lock.OWNER),
        "timeout_s": shared.job_timeout_s(job),
        "stall_s": shared.stall_s,
        "grace_s": shared.grace_s,
    }
    write_json(records.launch, spec)
    read_end, lifeline = os.pipe()  # neither end is inherited by other children
    with (records.root / "supervisor.txt").open("ab") as output:
        starter = subprocess.Popen(
            [sys.executable, "-m", "pgray.supervisor", str(records.launch)],
            stdin=read_end,
            stdout=output,
            stderr=output,
            cwd=records.root,
            env=launch.environment(os.environ, shared.machine),
            start_new_session=True,
        )
    os.close(read_end)
    starter.wait()
    return token, lifeline


def _is_held(lifeline: int) -> bool:
    """Whether the supervisor lives: it alone holds the other end."""
    poll = select.poll()
    poll.register(lifeline, 0)  # an error is always told
    return not poll.poll(0)


def _reap(token: str, records: JobLayout) -> None:
    """The supervisor died: end what it left, and write the exit record in its place."""
    killed, survivors = processes.end_all(lambda: processes.of_job(token))
    now = time.time()
    record = {"code": None, "stop": "supervisor", "error": None, "killed": killed, "survivors": survivors}
    started = records.launch.stat().st_mtime
    write_json(records.exit, {**record, "node": processes.identity()["host"], "started_at": started, "ended_at": now})


class _Progress:
    """Where a job stands, from the events that its trainer appends."""

    def __init__(self, job: Job, layout: RunLayout) -> None:
        self._job, self._layout = job, layout
        self._path = layout.trained(job.train_fingerprint).events
        self._offset = self._path.stat().st_size if self._path.exists() else 0
        self._latest: dict[str, Any] = {}
        self._last_state: tuple[Any, ...] = ()

    def has_news(self) -> bool:
        for event in self._new_events():
            if event.get("event") == "step":
                self._latest = event
        state = (self._latest.get("step"), self._exported())
        is_new = state != self._last_state and state != (None, 0)
        self._last_state = state
        return is_new

    def metrics(self) -> dict[str, Any]:
        train = self._job.config.train
        step, elapsed = self._latest.get("step", 0), self._latest.get("train_s", 0.0)
        is_trained = self._layout.trained(self._job.train_fingerprint).record.exists()
        done_frac = 1.0 if is_trained else min(1.0, max(step / train.iterations, elapsed / train.wallclock_s))
        return {
            "step": step,
            "steps": train.iterations,
            "train_s": elapsed,
            "train_loss_nats": self._latest.get("train_loss_nats"),
            "train_frac": done_frac,
            "exported": self._exported(),
            "exports": len(self._job.trials),
        }

    def _exported(self) -> int:
        return sum(self._layout.trial(trial.trial_id).result.exists() for trial in self._job.trials)

    def _new_events(self) -> Iterator[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                lines = file.read().split(b"\n")
        except OSError:
            return
        for line in lines[:-1]:  # the last has no end yet
            self._offset += len(line) + 1
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict):
                yield event

"""An executor for tests of the scheduler's decisions: no Ray, no processes, always the same order.

It runs jobs in this process, one training step per poll, and writes the files that a supervisor and a trainer would write.
The knobs of `tests/pgray/fake_trainer.py` work here as well, except those that are about processes.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import IO

import pytest

import pgray.scheduler.curve_monitor
import pgray.scheduler.driver
from pgray.execution.cluster import Cluster
from pgray.execution.job_events import JobEvents, JobProgress
from pgray.execution.launchers.base import LaunchSettings
from pgray.execution.worker import archive_attempt
from tests.pgray import fake_trainer
from trainer.__main__ import report_failure
from trainer.records.events import EventLog
from trainer.records.files import write_json, write_text
from trainer.records.job import Job, load_job
from trainer.records.layout import RunLayout
from trainer.records.trained import usable_training

_MAX_POLLS = 5_000  # more means that a test would never end


class _StoppedError(Exception):
    """The supervisor stops the job."""


class _SignalledError(Exception):
    """A signal ends the trainer."""


class WorkerDiedError(Exception):
    """The executor reports the message; no exit record is written."""


class FakeExecutor:
    """Stands in for Ray (`pgray/execution/executor.py`).

    Args:
        slots: jobs that run at the same time.

    `at_poll`: number of a poll, from 1 -> what a test does then, such as sending a signal. `lost_workers`: arms whose
    worker dies in the middle of the training.
    """

    def __init__(self, slots: int = 2) -> None:
        self.slots, self.num_polls = slots, 0
        self._cluster = Cluster(((float(slots), 4.0),))
        self.at_poll: dict[int, Callable[[], object]] = {}
        self.lost_workers: set[str] = set()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pgray.scheduler.driver, "make_executor", lambda _: self)
        monkeypatch.setattr(pgray.scheduler.curve_monitor, "_POLL_S", 0.0)

    def connect(self, say: Callable[[str], None], is_interrupted: Callable[[], bool]) -> Cluster:
        return self._cluster

    def close(self) -> None:
        """Nothing was started."""

    def run_jobs(self, launch: LaunchSettings, events: JobEvents) -> None:
        running: dict[str, Iterator[JobProgress]] = {}
        while events.poll():
            self.num_polls += 1
            assert self.num_polls < _MAX_POLLS, "the sweep makes no progress"
            self.at_poll.get(self.num_polls, lambda: None)()
            job_id = events.next_job(self.slots)
            if job_id is not None:
                running[job_id] = self._run(job_id, launch)
                events.on_started(job_id)
            for job_id, job in list(running.items()):
                try:
                    events.on_progress(job_id, next(job))
                except (StopIteration, WorkerDiedError) as end:
                    del running[job_id]
                    events.on_ended(job_id, str(end) if isinstance(end, WorkerDiedError) else None)
        for job in running.values():
            job.close()  # type: ignore[attr-defined]

    def _run(self, job_id: str, launch: LaunchSettings) -> Iterator[JobProgress]:
        """Run a job and write what its supervisor would: the logs and how it ended."""
        layout = RunLayout(launch.run_root)
        records = layout.job(job_id)
        job = load_job(records.job)
        started_at, code, stop = time.time(), 0, None
        write_json(records.launch, {"token": f"fake-{job_id}"})
        write_json(records.supervisor, {"pid": os.getpid()})
        with records.log.open("w") as log:
            print(f"fake job {job_id}", file=log, flush=True)
            for trial in job.trials:
                folder = layout.trial(trial.trial_id)
                archive_attempt(folder)
                write_text(folder.config, trial.config.model_dump_json())
                folder.log.hardlink_to(records.log)
            try:
                yield from self._train(job, layout, log)
                for trial in job.trials if job.config.optim.muon_momentum_steps != 6 else ():
                    fake_trainer.export(trial.trial_id, job, layout)
            except GeneratorExit:
                stop = "lifeline"
            except _StoppedError:
                stop = "killed"
            except _SignalledError:
                code = -9
            except WorkerDiedError:
                raise
            except Exception as error:
                with contextlib.redirect_stderr(log):
                    code = report_failure(error, job, layout.root)
        record = {"node": "here", "log": records.log.name, "code": None if stop else code, "stop": stop}
        times = {"started_at": started_at, "ended_at": time.time()}
        if layout.root.is_dir():  # as a supervisor does
            write_json(records.exit, {**record, **times, "rank": 0, "killed": [], "survivors": []})

    def _train(self, job: Job, layout: RunLayout, log: IO[str]) -> Iterator[JobProgress]:
        trained, accident = layout.trained(job.train_fingerprint), job.config.optim.muon_momentum_steps
        if usable_training(trained, (trial.config for trial in job.trials)) is not None:
            return
        events = EventLog(trained.events)
        with (trained.root / "launches.txt").open("a") as file:
            file.write(f"{job.job_id}\n")
        steps = job.config.train.iterations
        for step in range(1, steps + 1):
            if not layout.root.is_dir():
                raise _SignalledError  # the driver kills all processes of a run folder that has gone
            if layout.job(job.job_id).kill.exists():
                raise _StoppedError
            loss = fake_trainer.loss_at(job, step)
            events.write("step", step=step, train_s=step / 100, train_loss_nats=loss)
            print(f"step step={step}", file=log, flush=True)
            if step == steps // 2:
                if any(trial.trial_id.startswith(f"{arm}-") for trial in job.trials for arm in self.lost_workers):
                    raise WorkerDiedError("the node of the worker is gone")
                if accident == 4 or (accident == 10 and job.job_id.endswith("-0")):
                    raise _SignalledError
                while accident == 3:
                    yield JobProgress(step, steps, step / 100, loss, step / steps, 0, len(job.trials))
                fake_trainer.accident(job)
            yield JobProgress(step, steps, step / 100, loss, step / steps, 0, len(job.trials))
        fake_trainer.finish_training(job, layout)


def send(number: int) -> Callable[[], None]:
    """Return a function that sends a signal to this process, for `at_poll`."""
    return lambda: os.kill(os.getpid(), number)

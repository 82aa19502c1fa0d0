"""Run one job inside a Ray worker: start it, report its progress, return when it has ended.

The worker keeps the lifeline of the job open (`pgray/execution/node_runner.py`). It polls and never waits for long, since
Ray could not stop it then. How the job ended is left on disk (exit record, results, log), where the driver reads it;
nothing is returned through Ray.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pgray.execution import supervisor
from pgray.execution.job_events import JobProgress
from pgray.execution.launchers.base import LaunchSettings, NodeRendezvous, free_port
from pgray.execution.node_runner import NodeRunner
from trainer.records.events import Event, EventFollower
from trainer.records.files import write_text
from trainer.records.job import Job, load_job
from trainer.records.layout import RunLayout, TrialLayout

if TYPE_CHECKING:
    from pgray.execution.multinode import PeerNodes

_POLL_S = 0.1
_REPORT_S = 2.0


def run_job(job_id: str, settings_text: str) -> None:
    """Run one job to its end, as the function that Ray Tune calls, and report progress every few seconds."""
    import ray
    from ray import tune

    settings = LaunchSettings.from_json(settings_text)
    job = load_job(RunLayout(settings.run_root).job(job_id).job)
    peers = None
    if settings.machine.nodes > 1:
        from pgray.execution.multinode import PeerNodes

        peers = PeerNodes(job, settings)
    follow_job(job, settings, tune.report, ray.get_runtime_context().get_node_id(), peers)


def write_job(job: Job, layout: RunLayout) -> None:
    """Write the file from which the worker and the trainer read a job."""
    write_text(layout.job(job.job_id).job, job.model_dump_json(indent=1) + "\n")


def follow_job(
    job: Job,
    settings: LaunchSettings,
    report: Callable[[dict[str, Any]], None],
    ray_node: str | None = None,
    peers: "PeerNodes | None" = None,
) -> None:
    """Start a job (see `write_job`) and wait until it is over.

    Args:
        report: receives the fields of a `JobProgress` under `progress`, at most every two seconds.
        ray_node: Ray's id of this node.
        peers: the job's other nodes.
    """
    layout = RunLayout(settings.run_root)
    records = layout.job(job.job_id)
    if supervisor.is_replaced(settings.driver, settings.run_root):
        return  # before any file is changed
    progress = _ProgressReader(job, layout)
    for trial in job.trials:
        archive_attempt(layout.trial(trial.trial_id))
        write_text(layout.trial(trial.trial_id).config, trial.config.model_dump_json(indent=1) + "\n")
    alone = NodeRendezvous(endpoint=f"127.0.0.1:{free_port()}", ray_node=ray_node)
    runner = NodeRunner(job, settings, peers.own_rendezvous if peers else alone)
    reported = 0.0
    try:
        if peers:
            peers.start()
        while not (runner.is_over() and records.exit.exists()):
            if peers:
                peers.poll()
            if time.monotonic() > reported + _REPORT_S and (latest := progress.poll()):
                report({"progress": asdict(latest)})
                reported = time.monotonic()
            time.sleep(_POLL_S)
    finally:
        runner.close()
        if peers:
            peers.close()


def archive_attempt(trial: TrialLayout) -> None:
    """Move what an earlier attempt left in a trial's folder to `attempt-N/`."""
    left = [path for path in trial.root.glob("*") if not path.name.startswith("attempt-")]
    if left:
        attempt = trial.root / f"attempt-{1 + len(list(trial.root.glob('attempt-*')))}"
        attempt.mkdir()
        for path in left:
            path.rename(attempt / path.name)


class _ProgressReader:
    """Follows the event log of a job's trainer."""

    def __init__(self, job: Job, layout: RunLayout) -> None:
        self._job, self._layout = job, layout
        self._log = EventFollower(layout.trained(job.train_fingerprint).events, skips_existing=True)
        self._state: tuple[Event, int] = ({}, 0)  # the last step, the number of exported trials

    def poll(self) -> JobProgress | None:
        """Return the progress if it has changed since the last call."""
        before = self._state
        last = [before[0], *(event for event in self._log.poll() if event.get("event") == "step")][-1]
        num_exported = sum(self._layout.trial(trial.trial_id).result.exists() for trial in self._job.trials)
        self._state = last, num_exported
        if self._state == before:
            return None
        train, step, elapsed = self._job.config.train, last.get("step", 0), last.get("train_s", 0.0)
        is_trained = self._layout.trained(self._job.train_fingerprint).record.exists()
        done_frac = 1.0 if is_trained else min(1.0, max(step / train.iterations, elapsed / train.wallclock_s))
        loss = last.get("train_loss_nats")
        return JobProgress(step, train.iterations, elapsed, loss, done_frac, num_exported, len(self._job.trials))

"""One job inside a Ray worker: begin it, follow its events, report progress, end when it ends.

The worker's own life is the job's lifeline (`holder.py`). It polls and never blocks in a wait, or Ray could not stop it.
How the job ended is left on disk (`exit.json`, records, log) and read by the driver; nothing is returned through Ray.
"""

import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pgray.execution import run_lock as lock
from pgray.execution import supervisor
from pgray.execution.job_events import JobProgress
from pgray.execution.launchers.base import LaunchSettings, NodeRendezvous, free_port
from pgray.execution.node_runner import NodeRunner
from trainer.records.events import EventFollower
from trainer.records.files import write_text
from trainer.records.job import Job, load_job
from trainer.records.layout import RunLayout, TrialLayout

if TYPE_CHECKING:
    from pgray.execution.multinode import PeerNodes

_POLL_S = 0.1
_REPORT_S = 2.0


def run_job(job_id: str, launch_text: str) -> None:
    """What Ray Tune runs: one job to its end, with progress reported every few seconds."""
    import ray
    from ray import tune

    shared = LaunchSettings.from_text(launch_text)
    job = load_job(RunLayout(shared.run_root).job(job_id).job)
    agents = None
    if shared.machine.nodes > 1:
        from pgray.execution.multinode import PeerNodes

        agents = PeerNodes(job, shared)
    follow_job(job, shared, tune.report, ray.get_runtime_context().get_node_id(), agents)


def write_job(job: Job, layout: RunLayout) -> None:
    """Put a job where its worker and its trainer find it."""
    write_text(layout.job(job.job_id).job, job.model_dump_json(indent=1) + "\n")


def follow_job(
    job: Job,
    shared: LaunchSettings,
    report: Callable[[dict[str, Any]], None],
    ray_node: str | None = None,
    agents: "PeerNodes | None" = None,
) -> None:
    """Start a job (see `write_job`) and stay until it is over.

    Args:
        report: gets plain values at most every two seconds.
        ray_node: Ray's id of this node.
        agents: hold the parts on the job's other nodes.
    """
    layout = RunLayout(shared.run_root)
    records = layout.job(job.job_id)
    if supervisor.is_replaced(shared.driver, shared.run_root / lock.OWNER):
        return  # before anything is touched
    progress = _Progress(job, layout)
    for trial in job.trials:
        make_room(layout.trial(trial.trial_id))
        write_text(layout.trial(trial.trial_id).config, trial.config.model_dump_json(indent=1) + "\n")
    token = uuid.uuid4().hex
    place = agents.own_place if agents else NodeRendezvous(meeting=f"127.0.0.1:{free_port()}")
    holder = NodeRunner(job, shared, place, token, ray_node)
    reported = 0.0
    try:
        if agents:
            agents.start(token)
        while not (holder.is_over() and records.exit.exists()):
            if agents:
                agents.look()
            if time.monotonic() > reported + _REPORT_S and progress.has_news():
                report(progress.current().to_report())
                reported = time.monotonic()
            time.sleep(_POLL_S)
    finally:
        holder.close()
        if agents:
            agents.close()


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


class _Progress:
    """Where a job stands, from the events that its trainer appends."""

    def __init__(self, job: Job, layout: RunLayout) -> None:
        self._job, self._layout = job, layout
        self._log = EventFollower(layout.trained(job.train_fingerprint).events, skips_existing=True)
        self._latest: dict[str, Any] = {}
        self._last_state: tuple[Any, ...] = ()

    def has_news(self) -> bool:
        for event in self._log.poll():
            if event.get("event") == "step":
                self._latest = event
        state = (self._latest.get("step"), self._exported())
        is_new = state != self._last_state and state != (None, 0)
        self._last_state = state
        return is_new

    def current(self) -> JobProgress:
        train = self._job.config.train
        step, elapsed = self._latest.get("step", 0), self._latest.get("train_s", 0.0)
        is_trained = self._layout.trained(self._job.train_fingerprint).record.exists()
        done_frac = 1.0 if is_trained else min(1.0, max(step / train.iterations, elapsed / train.wallclock_s))
        loss = self._latest.get("train_loss_nats")
        return JobProgress(step, train.iterations, elapsed, loss, done_frac, self._exported(), len(self._job.trials))

    def _exported(self) -> int:
        return sum(self._layout.trial(trial.trial_id).result.exists() for trial in self._job.trials)

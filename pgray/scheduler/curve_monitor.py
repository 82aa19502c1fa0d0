"""Watches the curves of running jobs and asks a training run to end when the stopping rules give it up."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pgray.planning.planner import PlannedTrial
from pgray.stopping.curves import Curve, CurveFile
from pgray.stopping.rule import StoppingRule, run_verdict
from trainer.records.files import write_json
from trainer.records.job import Job
from trainer.records.layout import RunLayout
from trainer.run.config import TrainConfig

_POLL_S = 2.0


class CurveMonitor:
    """Applies the sweep's stopping rules to curves.

    Args:
        rules: all of the sweep's; those that read no curves judge nothing here.
        control: the arm that others are compared with.
        trials: every planned trial by id; a search adds to it.
    """

    def __init__(
        self, rules: Sequence[StoppingRule[Any]], control: str, trials: Mapping[str, PlannedTrial], layout: RunLayout
    ) -> None:
        self._rules = [rule for rule in rules if rule.reads_curves]
        self._trials, self._layout = trials, layout
        self._controls = {trial.seed: trial for trial in trials.values() if trial.arm == control}
        self._files: dict[str, CurveFile] = {}
        self._next_poll = 0.0

    def poll(self, open_jobs: Mapping[str, Job]) -> dict[str, str]:
        """Judge the running training runs, at most every two seconds.

        Returns:
            Job id -> reason, of the jobs that have just been asked to end.
        """
        if not self._rules or time.monotonic() < self._next_poll:
            return {}
        self._next_poll = time.monotonic() + _POLL_S
        stopped: dict[str, str] = {}
        for job_id, job in open_jobs.items():
            kill_file = self._layout.job(job_id).kill
            reason = None if kill_file.exists() else self._verdict(job_id, job)
            if reason is not None:
                write_json(kill_file, {"reason": reason})
                stopped[job_id] = reason
        return stopped

    def _verdict(self, job_id: str, job: Job) -> str | None:
        supervisor, trained = self._layout.job(job_id).supervisor, self._layout.trained(job.train_fingerprint)
        control = self._controls.get(job.config.seed)
        if not supervisor.exists() or trained.record.exists():
            return None  # not yet, or no longer, in training
        if control is None or control.train_fingerprint == job.train_fingerprint:
            return None
        curve = self._curve(job.train_fingerprint, job.config.train)
        newest = max((point.at for points in curve.values() for point in points), default=0.0)
        if newest < supervisor.stat().st_mtime:
            return None  # an earlier attempt wrote all of it
        control_curve = self._curve(control.train_fingerprint, control.config.train)
        return run_verdict(self._rules, [self._trials[spec.trial_id].arm for spec in job.trials], curve, control_curve)

    def _curve(self, fingerprint: str, train: TrainConfig) -> Curve:
        events = self._layout.trained(fingerprint).events
        return self._files.setdefault(fingerprint, CurveFile(events, train)).read()

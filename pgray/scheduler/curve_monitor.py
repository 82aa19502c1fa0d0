"""Watching the curves of running jobs: a training run that a kill rule condemns is asked to end."""

import time
from collections.abc import Mapping

from pgray.planning.planner import PlannedTrial
from pgray.spec.sweep import Sweep
from pgray.stopping.curves import Curve, CurveFile
from pgray.stopping.pruning import run_verdict
from trainer.records.files import write_json
from trainer.records.job import Job
from trainer.records.layout import RunLayout
from trainer.run.config import TrainConfig

_LOOK_S = 2.0


class CurveMonitor:
    """Applies the sweep's rules on curves. `trials`: every planned trial by id; a search adds to it."""

    def __init__(self, sweep: Sweep, control: str, trials: Mapping[str, PlannedTrial], layout: RunLayout) -> None:
        self._rules = [rule for rule in sweep.file.kill if rule.is_on_curve]
        self._control, self._trials, self._layout = control, trials, layout
        self._controls = {trial.seed: trial for trial in trials.values() if trial.arm == control}
        self._files: dict[str, CurveFile] = {}
        self._next_look = 0.0

    def look(self, open_jobs: Mapping[str, Job]) -> None:
        """Read what is new, at most every two seconds, and ask condemned jobs to end."""
        if not self._rules or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_S
        for job_id, job in open_jobs.items():
            records = self._layout.job(job_id)
            if not records.supervisor.exists():
                continue
            is_trained = self._layout.trained(job.train_fingerprint).record.exists()
            control = self._controls.get(job.config.seed)
            if is_trained or control is None or control.train_fingerprint == job.train_fingerprint:
                continue
            arms = [self._trials[spec.trial_id].arm for spec in job.trials]
            curve = self._curve(job.train_fingerprint, job.config.train)
            newest = max((point.at for points in curve.values() for point in points), default=0.0)
            if newest < records.supervisor.stat().st_mtime:
                continue  # what an earlier attempt left
            other = self._curve(control.train_fingerprint, control.config.train)
            reason = run_verdict(self._rules, arms, self._control, curve, other)
            if reason is not None and not records.kill.exists():
                write_json(records.kill, {"reason": reason})

    def _curve(self, fingerprint: str, train: TrainConfig) -> Curve:
        events = self._layout.trained(fingerprint).events
        return self._files.setdefault(fingerprint, CurveFile(events, train)).read()

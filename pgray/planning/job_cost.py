"""Estimate the time and GPU-hours of the jobs of a plan, as expected and at most.

A job's time is start + training + one export per trial. Finished trials of the run folder provide these times; without any,
the limit of the training clock and fixed allowances do. At most: the time after which a job is killed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pgray.execution.launchers.base import LaunchSettings
from pgray.planning.past_trials import FinishedTrial
from pgray.planning.planner import PlannedTrial
from pgray.planning.step_time import StepTime
from trainer.records.job import Job, TrialSpec
from trainer.records.layout import RunLayout
from trainer.records.trained import usable_training
from trainer.run.config import Machine


@dataclass(frozen=True)
class Allowance:
    """Seconds outside the training clock: process start; compile, warm-up and validation; one export with evaluation."""

    start_s: float
    training_s: float
    export_s: float


ON_GPU = Allowance(start_s=30, training_s=90, export_s=150)  # PR 975 on 8 x H100: compile, and 84 s of evaluation
ON_CPU = Allowance(start_s=10, training_s=5, export_s=30)  # `cpu-smoke`, measured: 7-13 s, 2-6 s, 10-45 s


@dataclass(frozen=True)
class JobEstimate:
    """Estimate for one job. `trains`: False if usable trained weights are on disk. `gpus`: how many it holds."""

    trials: tuple[PlannedTrial, ...]
    trains: bool
    gpus: int
    expected_s: float
    at_most_s: float

    @property
    def expected_gpu_hours(self) -> float:
        return self.expected_s * self.gpus / 3600

    @property
    def training_gpu_hours_at_most(self) -> float:
        return self.trials[0].config.train.wallclock_s * self.gpus / 3600 if self.trains else 0.0

    @property
    def gpu_hours_at_most(self) -> float:
        return self.at_most_s * self.gpus / 3600


def estimate_jobs(
    jobs: Sequence[Sequence[PlannedTrial]],
    step_times: Mapping[str, StepTime],
    finished: Sequence[FinishedTrial],
    machine: Machine,
    layout: RunLayout,
) -> list[JobEstimate]:
    """Estimate each job. `jobs`: the trials of each; `step_times`: by arm."""
    allowance = _allowance(finished, machine)
    launch = LaunchSettings(layout.root, machine)
    estimates = []
    for trials in jobs:
        fingerprint = trials[0].train_fingerprint
        trains = usable_training(layout.trained(fingerprint), (trial.config for trial in trials)) is None
        training_s = step_times[trials[0].arm].train_s + allowance.training_s if trains else 0.0
        expected_s = allowance.start_s + training_s + allowance.export_s * len(trials)
        specs = [TrialSpec(trial_id=trial.trial_id, config=trial.config) for trial in trials]
        at_most_s = launch.job_timeout_s(Job(job_id="planned", train_fingerprint=fingerprint, trials=specs))
        gpus = machine.total_gpus
        estimates.append(JobEstimate(tuple(trials), trains, gpus, min(expected_s, at_most_s), at_most_s))
    return estimates


def _allowance(finished: Sequence[FinishedTrial], machine: Machine) -> Allowance:
    default = ON_GPU if machine.gpus else ON_CPU
    here = [f for f in finished if f.is_on(machine)]
    if not here:
        return default
    outside_clock_s = [f.training.wall_s - f.training.train_s for f in here if f.training]
    training_s = max(0.0, median(outside_clock_s)) if outside_clock_s else default.training_s
    return Allowance(default.start_s, training_s, median(f.result.wall_s for f in here))

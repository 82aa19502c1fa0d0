"""What the jobs of a plan will take, in wall time, GPU-hours and dollars: as expected, and at most.

A job's time = start + training run + its exports. Each is taken from the run folder's finished trials where there are some;
else the training clock's limit and generous allowances stand in. At most: what a job is allowed before it is ended.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pgray.execution.launchers.base import LaunchSettings
from pgray.planning.past_trials import FinishedTrial
from pgray.planning.planner import PlannedTrial
from pgray.planning.step_time import StepTime
from pgray.spec.budget import Budget
from pgray.store.budget import spent_gpu_s
from trainer.records.job import Job, TrialSpec
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.records.trained import usable_training
from trainer.run.config import Machine


@dataclass(frozen=True)
class Allowance:
    """Seconds beside the training clock: process start; compile, warm-up and validation; one export with evaluation."""

    start_s: float
    training_s: float
    export_s: float


ON_GPU = Allowance(
    start_s=30.0, training_s=90.0, export_s=150.0
)  # PR 975 on 8 x H100: 84 s of evaluation, and compiling
ON_CPU = Allowance(start_s=10.0, training_s=5.0, export_s=30.0)  # `cpu-smoke`, measured: 7-13 s, 2-6 s, 10-45 s


@dataclass(frozen=True)
class JobCost:
    """One job. `trains`: False where its trained weights are on disk. `gpus`: that it holds."""

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


def job_costs(
    groups: Sequence[Sequence[PlannedTrial]],
    paces: Mapping[str, StepTime],
    finished: Sequence[FinishedTrial],
    machine: Machine,
    layout: RunLayout,
) -> list[JobCost]:
    """What each job will take. `groups`: the trials of each; `paces`: by arm."""
    allowance = _allowance(finished, machine)
    launch = LaunchSettings(layout.root, machine)
    costs = []
    for group in groups:
        folder = layout.trained(group[0].train_fingerprint)
        trains = usable_training(folder, (trial.config for trial in group)) is None
        training_s = paces[group[0].arm].train_s + allowance.training_s if trains else 0.0
        expected_s = allowance.start_s + training_s + allowance.export_s * len(group)
        specs = [TrialSpec(trial_id=trial.trial_id, config=trial.config) for trial in group]
        job = Job(job_id="planned", train_fingerprint=group[0].train_fingerprint, trials=specs)
        at_most_s = launch.job_timeout_s(job)
        costs.append(JobCost(tuple(group), trains, machine.total_gpus, min(expected_s, at_most_s), at_most_s))
    return costs


def _allowance(finished: Sequence[FinishedTrial], machine: Machine) -> Allowance:
    usual = ON_GPU if machine.gpus else ON_CPU
    here = [f for f in finished if f.is_on(machine)]
    if not here:
        return usual
    beside = [f.training.wall_s - f.training.train_s for f in here if f.training]
    training_s = max(0.0, median(beside)) if beside else usual.training_s
    return Allowance(usual.start_s, training_s, median(f.result.wall_s for f in here))


@dataclass(frozen=True)
class BudgetLeft:
    """A sweep's budget as it stands: GPU-hours. `limit`: None = none given."""

    limit_gpu_hours: float | None
    spent_gpu_hours: float

    @property
    def left_gpu_hours(self) -> float | None:
        return None if self.limit_gpu_hours is None else max(0.0, self.limit_gpu_hours - self.spent_gpu_hours)


def budget_left(budget: Budget | None, entries: Sequence[LedgerEntry]) -> BudgetLeft:
    limit_s = budget.limit_gpu_s if budget else math.inf
    return BudgetLeft(limit_s / 3600 if math.isfinite(limit_s) else None, spent_gpu_s(entries) / 3600)

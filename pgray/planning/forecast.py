"""Predict the steps, bytes, time and cost of a plan, and warn about what looks wrong.

Uses the finished trials of the run folder if there are any. Writes nothing.
"""

import math
from dataclasses import dataclass

from pgray.planning.decision import Decision
from pgray.planning.forecast_warnings import budget_warnings, forecast_warnings
from pgray.planning.job_cost import JobEstimate, estimate_jobs
from pgray.planning.past_trials import finished_trials
from pgray.planning.size.fit import SizeModel, SizePrediction
from pgray.planning.step_time import StepTime, expected_step_time
from pgray.store.budget import spent_gpu_s
from trainer.records.layout import RunLayout
from trainer.records.ledger import read_ledger


@dataclass(frozen=True)
class Forecast:
    """The predictions for a plan.

    Args:
        step_times, sizes: by arm.
        jobs: the jobs of the decision.
        proposed_jobs: those that a search will still propose; each is assumed to be like the control.
        limit_gpu_hours: the budget; None = no limit.
        spent_gpu_hours: over all attempts in the ledger.
        time_source: what the times are estimated from, in words.
        warnings: of the plan and of the forecast.
    """

    step_times: dict[str, StepTime]
    sizes: dict[str, SizePrediction]
    jobs: list[JobEstimate]
    proposed_jobs: list[JobEstimate]
    limit_gpu_hours: float | None
    spent_gpu_hours: float
    time_source: str
    warnings: list[str]

    @property
    def all_jobs(self) -> list[JobEstimate]:
        return self.jobs + self.proposed_jobs

    @property
    def expected_gpu_hours(self) -> float:
        return sum(job.expected_gpu_hours for job in self.all_jobs)

    @property
    def gpu_hours_at_most(self) -> float:
        return sum(job.gpu_hours_at_most for job in self.all_jobs)

    @property
    def training_gpu_hours_at_most(self) -> float:
        return sum(job.training_gpu_hours_at_most for job in self.all_jobs)

    @property
    def longest_job_s(self) -> float:
        return max((job.expected_s for job in self.all_jobs), default=0.0)

    @property
    def jobs_s(self) -> float:
        """Expected time of all jobs in sequence."""
        return sum(job.expected_s for job in self.all_jobs)

    @property
    def left_gpu_hours(self) -> float | None:
        return None if self.limit_gpu_hours is None else max(0.0, self.limit_gpu_hours - self.spent_gpu_hours)

    @property
    def is_budget_enough(self) -> bool | None:
        """Whether the budget is expected to last; None without one."""
        return None if self.left_gpu_hours is None else self.expected_gpu_hours <= self.left_gpu_hours

    @property
    def bytes_source(self) -> str:
        return " and ".join(dict.fromkeys(size.source for size in self.sizes.values()))

    @property
    def steps_source(self) -> str:
        num_known = sum(step_time.step_ms is not None for step_time in self.step_times.values())
        if num_known == len(self.step_times):
            return "finished trials"
        return "finished trials, or train.iterations without a comparable one" if num_known else "train.iterations"


def forecast(decision: Decision, layout: RunLayout) -> Forecast:
    """Predict what a run would do. `layout`: the run folder, which need not exist."""
    plan, study = decision.plan, decision.plan.study
    sweep, arms = plan.sweep, plan.expansion.arms
    finished = finished_trials(layout)
    step_times = {arm.name: expected_step_time(arm.config, sweep.machine, finished) for arm in arms}
    model = SizeModel(finished)
    sizes = {name: model.predict(step_time) for name, step_time in step_times.items()}
    control = [next(trial for trial in plan.trials if trial.arm == plan.expansion.control)]
    to_propose = max(0, study.search.trials - len(study.proposals)) * len(sweep.seeds) if study else 0
    comparable = sum(trial.is_on(sweep.machine) for trial in finished)
    trials = f"{comparable} finished trial{'s' * (comparable != 1)}"
    limit_gpu_s = sweep.file.budget.limit_gpu_s if sweep.file.budget else math.inf
    found = Forecast(
        step_times,
        sizes,
        jobs=estimate_jobs(decision.jobs_to_run(), step_times, finished, sweep.machine, layout),
        proposed_jobs=estimate_jobs([control] * to_propose, step_times, finished, sweep.machine, layout),
        limit_gpu_hours=limit_gpu_s / 3600 if math.isfinite(limit_gpu_s) else None,
        spent_gpu_hours=spent_gpu_s(read_ledger(layout.ledger)[0]) / 3600,
        time_source=trials if comparable else "train.wallclock_s and typical times for the rest",
        warnings=[*plan.warnings, *forecast_warnings(step_times, sizes)],
    )
    found.warnings.extend(budget_warnings(found.all_jobs, found.left_gpu_hours))
    return found

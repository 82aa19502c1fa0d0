"""What a plan will come to: steps, bytes, time and money of every arm and job, and what is doubtful about them.

`make_plan` and `decide` say what is to be run; this says what to expect of it, from the run folder's finished trials where
there are some. Reads, and writes nothing.
"""

from dataclasses import dataclass

from pgray.planning.forecast_warnings import budget_doubts, expected_doubts
from pgray.planning.job_cost import BudgetLeft, JobCost, budget_left, job_costs
from pgray.planning.past_trials import finished_trials
from pgray.planning.planner import Decision
from pgray.planning.size.fit import SizeModel, SizePrediction
from pgray.planning.step_time import StepTime, expected_step_time
from trainer.records.layout import RunLayout
from trainer.records.ledger import read_ledger


@dataclass(frozen=True)
class Forecast:
    """`paces` and `sizes`: by arm. `jobs`: those of the decision. `jobs_to_come`: of what a search will propose, each taken
    to be like its base. `num_here`: finished trials on such a machine. `warnings`: the plan's own as well.
    """

    paces: dict[str, StepTime]
    sizes: dict[str, SizePrediction]
    jobs: list[JobCost]
    jobs_to_come: list[JobCost]
    budget: BudgetLeft
    num_here: int
    warnings: list[str]

    @property
    def all_jobs(self) -> list[JobCost]:
        return self.jobs + self.jobs_to_come


def forecast(decision: Decision, layout: RunLayout) -> Forecast:
    """Look ahead. `layout`: the run folder, which need not exist."""
    plan = decision.plan
    sweep, arms = plan.sweep, plan.expansion.arms
    finished = finished_trials(layout)
    paces = {arm.name: expected_step_time(arm.config, sweep.machine, finished) for arm in arms}
    model = SizeModel(finished)
    sizes = {name: model.predict(pace) for name, pace in paces.items()}
    jobs = job_costs(decision.jobs_to_run(), paces, finished, sweep.machine, layout)
    base = [[next(trial for trial in plan.trials if trial.arm == plan.expansion.control)]]
    to_come = job_costs(base * _num_to_come(decision), paces, finished, sweep.machine, layout)
    budget = budget_left(sweep.file.budget, read_ledger(layout.ledger)[0])
    warnings = [*plan.warnings, *expected_doubts(paces, sizes), *budget_doubts(jobs + to_come, budget)]
    num_here = sum(trial.is_on(sweep.machine) for trial in finished)
    return Forecast(paces, sizes, jobs, to_come, budget, num_here, warnings)


def _num_to_come(decision: Decision) -> int:
    """Trials that a search has yet to propose."""
    sweep, study = decision.plan.sweep, decision.plan.study
    if sweep.file.search is None:
        return 0
    proposed = len(study.proposals) if study else 0
    return max(0, sweep.file.search.trials - proposed) * len(sweep.seeds)

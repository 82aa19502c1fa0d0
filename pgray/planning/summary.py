"""Everything that `pgray plan` predicts, as one JSON object. docs/plan.md describes its keys."""

from pathlib import Path
from typing import Any

from pgray.data.check import DataReport
from pgray.planning.config_warnings import qat_coverage
from pgray.planning.decision import Action, Decision
from pgray.planning.forecast import Forecast
from pgray.planning.model_check import ModelFacts
from pgray.planning.planner import Plan, PlannedTrial
from pgray.spec.expand import Arm
from trainer.limits import ARTIFACT_CAP_BYTES

ACTIONS: tuple[Action, ...] = ("run", "finished", "recover", "leave")
NULL_WITHOUT_DATA = ("trials[].trial_id", "trials[].train_fingerprint", "jobs[][]", "job_costs[].train_fingerprint")


def summarize(decision: Decision, ahead: Forecast, models: dict[str, ModelFacts], run: Path) -> dict[str, Any]:
    """Return the plan in JSON types. `run`: the run folder, relative if the user's path was."""
    plan, sweep, file = decision.plan, decision.plan.sweep, decision.plan.sweep.file
    jobs = decision.jobs_to_run()
    has_data = bool(plan.checked_data)
    return {
        "sweep": sweep.name,
        "question": file.question,
        "source": file.source,
        "design": file.design,
        "run": str(run),
        "preset": sweep.preset.name,
        "machine": sweep.machine.model_dump(),
        "seeds": list(sweep.seeds),
        "set": dict(sweep.overrides),
        "control": plan.expansion.control,
        "counts": {
            "trials": len(plan.trials),
            **{action: len(decision.with_action(action)) for action in ACTIONS},
        },
        "jobs": [[_if_identified(plan, trial.trial_id) for trial in trials] for trials in jobs],
        "trials_to_propose": len(ahead.proposed_jobs),
        "training_runs_saved": sum(map(len, jobs)) - len(jobs),
        **_costs(decision, ahead),
        "warnings": [*ahead.warnings, *decision.warnings],
        "dropped": list(plan.expansion.dropped),
        "merged": list(plan.expansion.merged),
        "superseded": [entry.trial_id for entry in decision.superseded],
        "outdated": [trial.trial_id for trial in decision.outdated],
        "replaced": [entry.trial_id for entry in decision.replaced],
        "reads_data": has_data,
        "null_fields": [] if has_data else list(NULL_WITHOUT_DATA),
        "data": [_data(report) for report in plan.checked_data.values()],
        "predicted_from": {"bytes": ahead.bytes_source, "steps": ahead.steps_source, "time": ahead.time_source},
        "arms": [
            _arm(arm, ahead, models[arm.name]) | {"label": plan.expansion.labels.get(arm.name, arm.name)}
            for arm in plan.expansion.arms
        ],
        "artifact_cap_bytes": ARTIFACT_CAP_BYTES,
        "trials": [_trial(decision, trial) for trial in plan.trials],
        "file": file.model_dump(mode="json", exclude_none=True),
    }


def _if_identified(plan: Plan, identity: str) -> str | None:
    """Return None for the placeholder identities of a plan without data."""
    return identity if plan.checked_data else None


def _costs(decision: Decision, ahead: Forecast) -> dict[str, Any]:
    price = decision.plan.sweep.usd_per_gpu_hour

    def usd(gpu_hours: float | None) -> float | None:
        return None if price is None or gpu_hours is None else gpu_hours * price

    return {
        "training_gpu_hours_at_most": ahead.training_gpu_hours_at_most,
        "training_usd_at_most": usd(ahead.training_gpu_hours_at_most),
        "gpu_hours_expected": ahead.expected_gpu_hours,
        "usd_expected": usd(ahead.expected_gpu_hours),
        "gpu_hours_at_most": ahead.gpu_hours_at_most,
        "usd_at_most": usd(ahead.gpu_hours_at_most),
        "usd_per_gpu_hour": price,
        "longest_job_s": ahead.longest_job_s,
        "jobs_s": ahead.jobs_s,
        "job_costs": [
            {
                "trials": [{"arm": trial.arm, "seed": trial.seed} for trial in job.trials],
                "train_fingerprint": _if_identified(decision.plan, job.trials[0].train_fingerprint),
                "trains": job.trains,
                "expected_s": job.expected_s,
                "at_most_s": job.at_most_s,
                "gpu_hours_expected": job.expected_gpu_hours,
                "gpu_hours_at_most": job.gpu_hours_at_most,
            }
            for job in ahead.jobs
        ],
        "budget": {
            "limit_gpu_hours": ahead.limit_gpu_hours,
            "limit_usd": usd(ahead.limit_gpu_hours),
            "spent_gpu_hours": ahead.spent_gpu_hours,
            "left_gpu_hours": ahead.left_gpu_hours,
            "left_usd": usd(ahead.left_gpu_hours),
            "is_expected_to_suffice": ahead.is_budget_enough,
        },
    }


def _data(report: DataReport) -> dict[str, Any]:
    counts = ("vocab_size", "train_shards", "val_shards", "train_tokens", "val_tokens")
    return {
        "folder": str(report.folder),
        "tokenizer": str(report.tokenizer) if report.tokenizer else None,
        **{name: getattr(report, name) for name in ("data_sha", "tokenizer_sha", *counts)},
    }


def _arm(arm: Arm, ahead: Forecast, model: ModelFacts) -> dict[str, Any]:
    size, run = ahead.sizes[arm.name], ahead.step_times[arm.name]
    return {
        "arm": arm.name,
        "changes": arm.changes,
        "num_params": model.num_params,
        "tensors": [tensor.model_dump(mode="json") for tensor in model.tensors],
        "predicted_artifact_bytes": size.num_bytes,
        "predicted_artifact_bytes_low": size.low_bytes,
        "predicted_artifact_bytes_high": size.high_bytes,
        "predicted_share_of_cap": size.num_bytes / ARTIFACT_CAP_BYTES,
        "predicted_from": size.source,
        "predicted_steps": run.steps,
        "predicted_step_ms": run.step_ms,
        "predicted_train_s": run.train_s,
        "predicted_qat_coverage": qat_coverage(arm.config),
        "config": arm.config.model_dump(mode="json"),
    }


def _trial(decision: Decision, trial: PlannedTrial) -> dict[str, Any]:
    before = decision.before.get(trial.trial_id)
    return {
        "arm": trial.arm,
        "seed": trial.seed,
        "trial_id": _if_identified(decision.plan, trial.trial_id),
        "train_fingerprint": _if_identified(decision.plan, trial.train_fingerprint),
        "action": decision.actions[trial.trial_id],
        "before": before.state if before else None,
        "reason": before.reason if before else None,
    }

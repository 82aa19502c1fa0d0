"""All that `pgray plan` knows, as one JSON object; its keys stand in docs/plan.md."""

from pathlib import Path
from typing import Any

from pgray.data.check import DataReport
from pgray.planning.config_warnings import qat_coverage
from pgray.planning.forecast import Forecast
from pgray.planning.model_check import ModelFacts
from pgray.planning.planner import Action, Decision, Plan, PlannedTrial
from pgray.spec.expand import Arm
from trainer.limits import ARTIFACT_CAP_BYTES

ACTIONS: tuple[Action, ...] = ("run", "finished", "recover", "leave")
NULL_WITHOUT_DATA = ("trials[].trial_id", "trials[].train_fingerprint", "jobs[][]", "job_costs[].train_fingerprint")


def undecided(plan: Plan) -> Decision:
    """Everything is to be run: what can be said of a plan that knows no ledger."""
    return Decision(plan, {trial.trial_id: "run" for trial in plan.trials}, {}, (), ())


def summary_of(decision: Decision, ahead: Forecast, models: dict[str, ModelFacts], runs: Path) -> dict[str, Any]:
    """The plan in JSON types. `runs`: the folder of run folders, as the caller wrote it."""
    plan = decision.plan
    sweep = plan.sweep
    groups = decision.jobs_to_run()
    return {
        "sweep": sweep.name,
        "question": sweep.file.question,
        "source": sweep.file.source,
        "design": sweep.file.design,
        "run": str(runs / sweep.name),
        "preset": sweep.preset.name,
        "machine": sweep.machine.model_dump(),
        "seeds": list(sweep.seeds),
        "set": dict(sweep.overrides),
        "control": plan.expansion.control,
        "counts": {
            "trials": len(plan.trials),
            **{action: len(decision.with_action(action)) for action in ACTIONS},
        },
        "jobs": [[_known(plan, trial.trial_id) for trial in group] for group in groups],
        "trials_to_propose": len(ahead.jobs_to_come),
        "training_runs_saved": sum(len(group) for group in groups) - len(groups),
        **_costs(decision, ahead),
        "warnings": [*ahead.warnings, *decision.warnings],
        "dropped": list(plan.expansion.dropped),
        "merged": list(plan.expansion.merged),
        "superseded": [entry.trial_id for entry in decision.superseded],
        "outdated": [trial.trial_id for trial in decision.outdated],
        "reads_data": _reads_data(plan),
        "null_fields": [] if _reads_data(plan) else list(NULL_WITHOUT_DATA),
        "data": [_data(report) for report in plan.checked_data.values()],
        "predicted_from": _sources(ahead),
        "arms": [_arm(arm, ahead, models[arm.name]) for arm in plan.expansion.arms],
        "artifact_cap_bytes": ARTIFACT_CAP_BYTES,
        "trials": [_trial(decision, trial) for trial in plan.trials],
        "file": sweep.file.model_dump(mode="json", exclude_none=True),
    }


def _reads_data(plan: Plan) -> bool:
    return bool(plan.checked_data)


def _known(plan: Plan, identity: str) -> str | None:
    return identity if _reads_data(plan) else None


def _costs(decision: Decision, ahead: Forecast) -> dict[str, Any]:
    sweep, budget = decision.plan.sweep, ahead.budget
    price = sweep.usd_per_gpu_hour

    def usd(gpu_hours: float | None) -> float | None:
        return None if price is None or gpu_hours is None else gpu_hours * price

    training = sum(job.training_gpu_hours_at_most for job in ahead.all_jobs)
    expected = sum(job.expected_gpu_hours for job in ahead.all_jobs)
    at_most = sum(job.gpu_hours_at_most for job in ahead.all_jobs)
    left = budget.left_gpu_hours
    return {
        "training_gpu_hours_at_most": training,
        "training_usd_at_most": usd(training),
        "gpu_hours_expected": expected,
        "usd_expected": usd(expected),
        "gpu_hours_at_most": at_most,
        "usd_at_most": usd(at_most),
        "usd_per_gpu_hour": price,
        "longest_job_s": max((job.expected_s for job in ahead.all_jobs), default=0.0),
        "jobs_s": sum(job.expected_s for job in ahead.all_jobs),
        "job_costs": [
            {
                "trials": [{"arm": trial.arm, "seed": trial.seed} for trial in job.trials],
                "train_fingerprint": _known(decision.plan, job.trials[0].train_fingerprint),
                "trains": job.trains,
                "expected_s": job.expected_s,
                "at_most_s": job.at_most_s,
                "gpu_hours_expected": job.expected_gpu_hours,
                "gpu_hours_at_most": job.gpu_hours_at_most,
            }
            for job in ahead.jobs
        ],
        "budget": {
            "limit_gpu_hours": budget.limit_gpu_hours,
            "limit_usd": usd(budget.limit_gpu_hours),
            "spent_gpu_hours": budget.spent_gpu_hours,
            "left_gpu_hours": left,
            "left_usd": usd(left),
            "is_expected_to_suffice": None if left is None else expected <= left,
        },
    }


def _sources(ahead: Forecast) -> dict[str, str]:
    """Where each kind of figure is from."""
    here = f"{ahead.num_here} finished trial{'s' * (ahead.num_here != 1)}"
    known = [pace for pace in ahead.paces.values() if pace.step_ms is not None]
    steps = "finished trials" if len(known) == len(ahead.paces) else "train.iterations"
    return {
        "bytes": " and ".join(dict.fromkeys(size.source for size in ahead.sizes.values())),
        "steps": steps
        if len(known) in (0, len(ahead.paces))
        else "finished trials, or train.iterations where none fits",
        "time": here if ahead.num_here else "the training clock's limit and usual times for the rest",
    }


def _data(report: DataReport) -> dict[str, Any]:
    return {
        "folder": str(report.folder),
        "tokenizer": str(report.tokenizer) if report.tokenizer else None,
        "data_sha": report.data_sha,
        "tokenizer_sha": report.tokenizer_sha,
        "vocab_size": report.vocab_size,
        "train_shards": report.train_shards,
        "val_shards": report.val_shards,
        "train_tokens": report.train_tokens,
        "val_tokens": report.val_tokens,
    }


def _arm(arm: Arm, ahead: Forecast, model: ModelFacts) -> dict[str, Any]:
    size, pace = ahead.sizes[arm.name], ahead.paces[arm.name]
    return {
        "arm": arm.name,
        "changes": arm.changes,
        "num_params": model.num_params,
        "tensors": [{"name": name, "tensor_class": kind, "shape": shape} for name, kind, shape in model.tensors],
        "predicted_artifact_bytes": size.num_bytes,
        "predicted_artifact_bytes_low": size.low_bytes,
        "predicted_artifact_bytes_high": size.high_bytes,
        "predicted_share_of_cap": size.num_bytes / ARTIFACT_CAP_BYTES,
        "predicted_from": size.source,
        "predicted_steps": pace.steps,
        "predicted_step_ms": pace.step_ms,
        "predicted_train_s": pace.train_s,
        "predicted_qat_coverage": qat_coverage(arm.config),
        "config": arm.config.model_dump(mode="json"),
    }


def _trial(decision: Decision, trial: PlannedTrial) -> dict[str, Any]:
    before = decision.before.get(trial.trial_id)
    return {
        "arm": trial.arm,
        "seed": trial.seed,
        "trial_id": _known(decision.plan, trial.trial_id),
        "train_fingerprint": _known(decision.plan, trial.train_fingerprint),
        "action": decision.actions[trial.trial_id],
        "before": before.state if before else None,
        "reason": before.reason if before else None,
    }

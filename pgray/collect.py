"""Writing a sweep's history: what the driver decided and how its jobs ended, as ledger entries.

No trial is ever missing: each one that was asked for has an entry from the moment it is planned, and each end of a job
gives every one of its trials a last word. GPU time and cost are the job's, divided equally among its trials.
"""

import time
from collections.abc import Mapping
from typing import Any

from pgray.failures import read_result, trial_ending
from pgray.ledger import Ledger
from pgray.plan import Decision, PlannedTrial
from trainer.config import Machine
from trainer.job import Job
from trainer.layout import RunLayout, read_json
from trainer.record import LedgerEntry, TrialState


class History:
    """Writes the ledger of one run folder; the caller holds its lock."""

    def __init__(self, layout: RunLayout, decision: Decision) -> None:
        self._layout, self._ledger = layout, Ledger(layout.ledger)
        self._sweep = decision.plan.sweep
        self._trials = {trial.trial_id: trial for trial in decision.plan.trials}
        self._attempts = {name: entry.attempt for name, entry in decision.before.items()}

    def begin(self, decision: Decision) -> None:
        """Write down a decision: what is no longer asked for, what is on disk already, what is to be run."""
        gone = [
            entry.model_copy(
                update={"at": time.time(), "state": "invalid", "reason": "the sweep no longer asks for it"}
            )
            for entry in decision.superseded
        ]
        outdated = {trial.trial_id for trial in decision.outdated}
        new = []
        for trial in decision.plan.trials:
            action, before = decision.actions[trial.trial_id], decision.before.get(trial.trial_id)
            if action == "run":
                if before is None or before.state != "queued" or trial.trial_id in outdated:
                    new.append(self._entry(trial, "queued"))
            elif action == "recover":
                result = read_result(self._layout.trial(trial.trial_id))
                new.append(self._entry(trial, "finished", source="recovered", node=result.node if result else None))
            elif trial.trial_id in outdated and before is not None:
                new.append(before.model_copy(update={"at": time.time()}))  # asked for again: current once more
        self._ledger.append(*gone, *new)

    def started(self, job: Job) -> None:
        for spec in job.trials:
            self._attempts[spec.trial_id] = self._attempts.get(spec.trial_id, 0) + 1
        self._ledger.append(*[self._entry(self._trials[s.trial_id], "running", job_id=job.job_id) for s in job.trials])

    def ended(self, job: Job, is_stopping: bool, worker_error: str | None) -> list[LedgerEntry]:
        """Write how each trial of an ended job ended; arguments as in `trial_ending`. Returns the entries."""
        records = self._layout.job(job.job_id)
        exit_record = read_json(records.exit)
        shares = self._shares(exit_record, len(job.trials), self._sweep.machine)
        entries = []
        for spec in job.trials:
            ending = trial_ending(self._layout.trial(spec.trial_id), records, is_stopping, worker_error)
            entry = self._entry(
                self._trials[spec.trial_id],
                ending.state,
                job_id=job.job_id,
                failure_kind=ending.kind,
                reason=ending.reason,
                source="run" if ending.state == "finished" else None,
                node=exit_record.get("node"),
                **shares,
            )
            entries.append(entry)
        self._ledger.append(*entries)
        return entries

    def label(self, job: Job) -> str:
        """What a job is called on the screen: its arms and seed."""
        arms = [self._trials[spec.trial_id].arm for spec in job.trials]
        shown = ", ".join(arms[:3]) + (f" and {len(arms) - 3} more" if len(arms) > 3 else "")
        return f"{shown} seed {job.config.seed}"

    def _entry(self, trial: PlannedTrial, state: TrialState, **fields: Any) -> LedgerEntry:
        return LedgerEntry(
            at=time.time(),
            sweep=self._sweep.name,
            arm=trial.arm,
            seed=trial.seed,
            trial_id=trial.trial_id,
            train_fingerprint=trial.train_fingerprint,
            state=state,
            attempt=self._attempts.get(trial.trial_id, 0),
            **fields,
        )

    def _shares(self, exit_record: Mapping[str, Any], num_trials: int, machine: Machine) -> dict[str, float | None]:
        if "started_at" not in exit_record or "ended_at" not in exit_record:
            return {"gpu_held_s": None, "cost_usd": None}
        held_s = (exit_record["ended_at"] - exit_record["started_at"]) * machine.gpus * machine.nodes / num_trials
        price = self._sweep.usd_per_gpu_hour
        return {"gpu_held_s": held_s, "cost_usd": None if price is None else held_s / 3600 * price}


def job_token(layout: RunLayout, job_id: str) -> str | None:
    """The token that the processes of a job carry; None where the job never came to be started."""
    token = read_json(layout.job(job_id).launch).get("token")
    return None if token is None else str(token)

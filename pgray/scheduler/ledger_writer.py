"""Writing a sweep's history: what the driver decided and how its jobs ended, as ledger entries.

No trial is ever missing: each one that was asked for has an entry from the moment it is planned, and each end of a job
gives every one of its trials a last word. GPU time and cost are the job's, divided equally among its trials.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from pgray.planning.planner import Decision, PlannedTrial
from pgray.store.exit_record import ExitRecord
from pgray.store.ledger import Ledger
from pgray.store.outcomes import Ending, read_result, trial_ending
from pgray.store.process_records import SupervisorSpec, read_record
from pgray.store.retries import failures_that_count
from trainer.errors import FailureKind
from trainer.records.job import Job
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.records.states import TrialState
from trainer.run.config import Machine


def settle(layout: RunLayout, machine: Machine, usd_per_gpu_hour: float | None) -> None:
    """Write how the jobs ended that a dead driver left running; all their processes have ended by now.

    A job that was cut off because its driver died has not failed. One that left no word is lost.
    """
    ledger = Ledger(layout.ledger)
    running: dict[str, list[LedgerEntry]] = {}
    for entry in ledger.states().values():
        if entry.state == TrialState.RUNNING and entry.job_id:
            running.setdefault(entry.job_id, []).append(entry)
    for job_id, entries in running.items():
        exit_record = read_record(ExitRecord, layout.job(job_id).exit)
        try:
            num_trials = len(Job.model_validate_json(layout.job(job_id).job.read_bytes(), strict=False).trials)
        except (OSError, ValidationError):
            num_trials = len(entries)
        held = _held(exit_record, num_trials, machine, usd_per_gpu_hour)
        for entry in entries:
            if exit_record is not None:
                ending = trial_ending(layout.trial(entry.trial_id), layout.job(job_id), is_stopping=True)
            elif read_result(layout.trial(entry.trial_id)) is not None:
                ending = Ending(TrialState.FINISHED)
            else:
                ending = Ending(
                    TrialState.LOST, "lost", "its driver and its supervisor died, and it left no word of its end"
                )
            ledger.append(_with_ending(entry, ending, exit_record, held))


class LedgerWriter:
    """Writes the ledger of one run folder; the caller holds its lock."""

    def __init__(self, layout: RunLayout, decision: Decision) -> None:
        self._layout, self._ledger = layout, Ledger(layout.ledger)
        self._sweep = decision.plan.sweep
        self._trials = {trial.trial_id: trial for trial in decision.plan.trials}
        self._attempts = {name: entry.attempt for name, entry in decision.before.items()}
        self._failures = failures_that_count(self._ledger.entries())

    def begin(self, decision: Decision) -> None:
        """Write down a decision: what is no longer asked for, what is on disk already, what is to be run."""
        gone = [
            entry.moved_to(TrialState.INVALID, reason="the sweep no longer asks for it")
            for entry in decision.superseded
        ]
        outdated = {trial.trial_id for trial in decision.outdated}
        new = []
        for trial in decision.plan.trials:
            action, before = decision.actions[trial.trial_id], decision.before.get(trial.trial_id)
            if action == "run":
                if before is None or before.state != TrialState.QUEUED or trial.trial_id in outdated:
                    new.append(self._entry(trial, TrialState.QUEUED))
            elif action == "recover":
                result = read_result(self._layout.trial(trial.trial_id))
                new.append(
                    self._entry(trial, TrialState.FINISHED, source="recovered", node=result.node if result else None)
                )
            elif trial.trial_id in outdated and before is not None:
                new.append(before.model_copy(update={"at": time.time()}))  # asked for again: current once more
        self._ledger.append(*gone, *new)

    def proposed(self, trials: Iterable[PlannedTrial]) -> None:
        """Write down trials that a search has just asked for."""
        trials = list(trials)
        self._trials |= {trial.trial_id: trial for trial in trials}
        self._ledger.append(*[self._entry(trial, TrialState.QUEUED) for trial in trials])

    def started(self, job: Job) -> None:
        for spec in job.trials:
            self._attempts[spec.trial_id] = self._attempts.get(spec.trial_id, 0) + 1
        self._ledger.append(
            *[self._entry(self._trials[s.trial_id], TrialState.RUNNING, job_id=job.job_id) for s in job.trials]
        )

    def ended(self, job: Job, is_stopping: bool, worker_error: str | None) -> list[LedgerEntry]:
        """Write how each trial of an ended job ended; arguments as in `trial_ending`. Returns the entries."""
        records = self._layout.job(job.job_id)
        exit_record = read_record(ExitRecord, records.exit)
        held = _held(exit_record, len(job.trials), self._sweep.machine, self._sweep.usd_per_gpu_hour)
        entries = []
        for spec in job.trials:
            ending = trial_ending(self._layout.trial(spec.trial_id), records, is_stopping, worker_error)
            running = self._entry(self._trials[spec.trial_id], TrialState.RUNNING, job_id=job.job_id)
            entries.append(_with_ending(running, ending, exit_record, held))
            if ending.kind:
                self._failures.setdefault(spec.trial_id, Counter())[ending.kind] += 1
        self._ledger.append(*entries)
        return entries

    def tried_again(self, entry: LedgerEntry, tries: int) -> None:
        reason = f"{entry.failure_kind}, tried again ({tries}): {entry.reason}"
        self._ledger.append(entry.moved_to(TrialState.QUEUED, reason=reason))

    def killed(self, trials: Iterable[PlannedTrial], reason: str) -> list[LedgerEntry]:
        """Write down trials that a rule has made pointless before they began. Returns the entries."""
        entries = [self._entry(trial, TrialState.KILLED, reason=reason) for trial in trials]
        self._ledger.append(*entries)
        return entries

    def num_failures(self, trial_id: str, kind: FailureKind | None) -> int:
        """How often a trial has failed in this way since a retry was last asked for."""
        return 0 if kind is None else self._failures.get(trial_id, Counter())[kind]

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
            changes=trial.changes if state == TrialState.QUEUED else None,
            state=state,
            attempt=self._attempts.get(trial.trial_id, 0),
            **fields,
        )


def _with_ending(
    running: LedgerEntry, ending: Ending, exit_record: ExitRecord | None, held: Mapping[str, float | None]
) -> LedgerEntry:
    return running.moved_to(
        ending.state,
        failure_kind=ending.kind,
        reason=ending.reason,
        source="run" if ending.state == TrialState.FINISHED else None,
        job_id=running.job_id,
        node=exit_record.node if exit_record else None,
        **held,
    )


def _held(
    exit_record: ExitRecord | None, num_trials: int, machine: Machine, usd_per_gpu_hour: float | None
) -> dict[str, float | None]:
    """A trial's share of the GPU time that its job held, and what that cost; None where nobody measured it."""
    if exit_record is None or exit_record.duration_s is None:
        return {"gpu_held_s": None, "cost_usd": None}
    held_s = exit_record.duration_s * machine.total_gpus / num_trials
    return {"gpu_held_s": held_s, "cost_usd": None if usd_per_gpu_hour is None else held_s / 3600 * usd_per_gpu_hour}


def job_token(layout: RunLayout, job_id: str) -> str | None:
    """The token that the processes of a job carry; None where the job never came to be started."""
    spec = SupervisorSpec.read(layout.job(job_id).launch)
    return spec.token if spec else None

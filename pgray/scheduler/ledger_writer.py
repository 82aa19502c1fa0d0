"""Writes the driver's decisions, and how its jobs ended, into the ledger and the driver log.

Every trial has an entry from the moment it is planned, and the end of a job adds one for each of its trials. GPU time and
cost of a job are divided equally among its trials.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from pgray.planning.decision import Decision
from pgray.planning.planner import PlannedTrial
from pgray.spec.sweep import Sweep
from pgray.store.exit_record import ExitRecord
from pgray.store.ledger import Ledger, failures_that_count
from pgray.store.outcomes import Ending, read_result, trial_ending
from pgray.store.process_records import read_record
from trainer.errors import FailureKind
from trainer.records.job import Job
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.records.states import TrialState


def close_dead_jobs(layout: RunLayout, sweep: Sweep, log: logging.Logger) -> None:
    """Write how the jobs ended that a dead driver left running. Call it after all their processes have ended.

    A job that was stopped because its driver died has not failed. One without an exit record or a result is lost.
    """
    ledger = Ledger(layout.ledger)
    running: dict[str, list[LedgerEntry]] = defaultdict(list)
    for entry in ledger.states().values():
        if entry.state == TrialState.RUNNING and entry.job_id:
            running[entry.job_id].append(entry)
    for job_id, entries in running.items():
        exit_record = read_record(ExitRecord, layout.job(job_id).exit)
        try:
            num_trials = len(Job.model_validate_json(layout.job(job_id).job.read_bytes(), strict=False).trials)
        except (OSError, ValidationError):
            num_trials = len(entries)
        for entry in entries:
            if exit_record is not None:
                ending = trial_ending(layout.trial(entry.trial_id), layout.job(job_id), is_stopping=True)
            elif read_result(layout.trial(entry.trial_id)) is not None:
                ending = Ending(TrialState.FINISHED)
            else:
                reason = "its driver and its supervisor died, and nothing recorded how it ended"
                ending = Ending(TrialState.LOST, "lost", reason)
            ledger.append(_ended(entry, ending, exit_record, num_trials, sweep))
            log.info("closed job %s of a dead driver, %s", job_id, _ending_text(entry, ending))


class LedgerWriter:
    """Writes the ledger of one run folder and, in the same words, its driver log. The caller holds the folder's lock."""

    def __init__(self, layout: RunLayout, decision: Decision, log: logging.Logger | None = None) -> None:
        self._layout, self._ledger = layout, Ledger(layout.ledger)
        self._log = log or logging.Logger("unused")
        self._sweep, self._labels = decision.plan.sweep, decision.plan.expansion.labels
        self._trials = {trial.trial_id: trial for trial in decision.plan.trials}
        self._attempts = {name: entry.attempt for name, entry in decision.before.items()}
        self._failures = defaultdict(Counter[FailureKind], failures_that_count(self._ledger.entries()))

    def begin(self, decision: Decision) -> None:
        """Write a decision: trials that the sweep no longer asks for, results found on disk, trials to run."""
        why = "the sweep no longer asks for it"
        gone = [entry.moved_to(TrialState.INVALID, reason=why) for entry in decision.superseded]
        outdated = {trial.trial_id for trial in decision.outdated}
        new = []
        for trial in decision.plan.trials:
            action, before = decision.actions[trial.trial_id], decision.before.get(trial.trial_id)
            if action == "run":
                if before is None or before.state != TrialState.QUEUED or trial.trial_id in outdated:
                    new.append(self._entry(trial, TrialState.QUEUED))
            elif action == "recover":
                result = read_result(self._layout.trial(trial.trial_id))
                node = result.node if result else None
                new.append(self._entry(trial, TrialState.FINISHED, source="recovered", node=node))
            elif trial.trial_id in outdated and before is not None:
                asked_again = {"at": time.time(), "config_sha": trial.config_sha}  # and mentioned last: it is current
                new.append(before.model_copy(update=asked_again))
        self._ledger.append(*gone, *new)
        for entry in (*gone, *(entry for entry in new if entry.source == "recovered")):
            self._log.info("%s %s: %s", entry.state, entry.trial_id, entry.reason or "its result was found on disk")

    def proposed(self, trials: Iterable[PlannedTrial]) -> None:
        """Write the trials of a search's next proposal."""
        trials = list(trials)
        self._trials |= {trial.trial_id: trial for trial in trials}
        self._ledger.append(*[self._entry(trial, TrialState.QUEUED) for trial in trials])
        for arm, changes in {trial.arm: trial.changes or {} for trial in trials}.items():
            self._log.info("proposed %s: %s", arm, ", ".join(f"{key}={value}" for key, value in changes.items()))

    def started(self, job: Job) -> None:
        for spec in job.trials:
            self._attempts[spec.trial_id] = self._attempts.get(spec.trial_id, 0) + 1
        trials = [self._trials[spec.trial_id] for spec in job.trials]
        self._ledger.append(*[self._entry(trial, TrialState.RUNNING, job_id=job.job_id) for trial in trials])
        self._log.info("launched job %s: %s", job.job_id, _job_text(job, [trial.arm for trial in trials]))

    def ended(self, job: Job, is_stopping: bool, worker_error: str | None) -> list[LedgerEntry]:
        """Write how each trial of an ended job ended; arguments as in `trial_ending`. Returns the entries."""
        records = self._layout.job(job.job_id)
        exit_record = read_record(ExitRecord, records.exit)
        entries = []
        for spec in job.trials:
            ending = trial_ending(self._layout.trial(spec.trial_id), records, is_stopping, worker_error)
            running = self._entry(self._trials[spec.trial_id], TrialState.RUNNING, job_id=job.job_id)
            entries.append(_ended(running, ending, exit_record, len(job.trials), self._sweep))
            if ending.kind:
                self._failures[spec.trial_id][ending.kind] += 1
            self._log.info("ended job %s, %s", job.job_id, _ending_text(running, ending))
        self._ledger.append(*entries)
        return entries

    def retried(self, entry: LedgerEntry, num_failures: int) -> None:
        """Queue a failed trial again."""
        reason = f"{entry.failure_kind}, retried ({num_failures}): {entry.reason}"
        self._ledger.append(entry.moved_to(TrialState.QUEUED, reason=reason))
        self._log.info("retried %s: %s", entry.trial_id, reason)

    def skipped(self, trials: Iterable[PlannedTrial], reason: str) -> list[LedgerEntry]:
        """Write trials that a stopping rule skips. Returns the entries."""
        entries = [self._entry(trial, TrialState.KILLED, reason=reason) for trial in trials]
        self._ledger.append(*entries)
        for entry in entries:
            self._log.info("skipped %s: %s", entry.trial_id, reason)
        return entries

    def num_failures(self, trial_id: str, kind: FailureKind | None) -> int:
        """Return how often a trial has failed in this way since the last `pgray retry`."""
        return 0 if kind is None else self._failures[trial_id][kind]

    def label(self, job: Job) -> str:
        """Return a job's arms, by the names that tables show, and its seed."""
        return _job_text(job, [self.arm_label(self._trials[spec.trial_id].arm) for spec in job.trials])

    def arm_label(self, arm: str) -> str:
        """Return the name of an arm that tables show; a search has no other than the arm's own."""
        return self._labels.get(arm, arm)

    def _entry(self, trial: PlannedTrial, state: TrialState, **fields: Any) -> LedgerEntry:
        return LedgerEntry(
            at=time.time(),
            sweep=self._sweep.name,
            arm=trial.arm,
            seed=trial.seed,
            trial_id=trial.trial_id,
            train_fingerprint=trial.train_fingerprint,
            config_sha=trial.config_sha,
            changes=trial.changes if state == TrialState.QUEUED else None,
            state=state,
            attempt=self._attempts.get(trial.trial_id, 0),
            **fields,
        )


def _job_text(job: Job, arms: list[str]) -> str:
    shown = ", ".join(arms[:3]) + (f" and {len(arms) - 3} more" if len(arms) > 3 else "")
    return f"{shown} seed {job.config.seed}"


def _ending_text(entry: LedgerEntry, ending: Ending) -> str:
    kind = f" ({ending.kind})" if ending.kind else ""
    return f"{entry.arm} seed {entry.seed}: {ending.state}{kind}{f': {ending.reason}' if ending.reason else ''}"


def _ended(
    running: LedgerEntry, ending: Ending, exit_record: ExitRecord | None, num_trials: int, sweep: Sweep
) -> LedgerEntry:
    """Return a trial's entry at the end of its job, with its share of the job's GPU time and cost if they are known."""
    held_s = exit_record.duration_s if exit_record else None
    if held_s is not None:
        held_s = held_s * sweep.machine.total_gpus / num_trials
    price = sweep.usd_per_gpu_hour
    return running.moved_to(
        ending.state,
        failure_kind=ending.kind,
        reason=ending.reason,
        source="run" if ending.state == TrialState.FINISHED else None,
        job_id=running.job_id,
        node=exit_record.node if exit_record else None,
        gpu_held_s=held_s,
        cost_usd=None if held_s is None or price is None else held_s / 3600 * price,
    )

"""Decides what runs next: holds the waiting and the open jobs, and skips trials that need not run after all.

The trials of a sweep that share a training run make one job. After each job everything is decided again: retries, arms that
a stopping rule has dropped, the budget, the circuit breaker, and what a search proposes. Every decision is in the ledger
before it takes effect.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pgray.execution.launchers.base import LaunchSettings
from pgray.execution.worker import write_job
from pgray.planning.decision import Decision
from pgray.planning.planner import PlannedTrial
from pgray.scheduler.circuit_breaker import CircuitBreaker
from pgray.scheduler.ledger_writer import LedgerWriter
from pgray.scheduler.time_left import JobToCome
from pgray.stopping.rule import StoppingRule, arms_to_drop
from pgray.store.budget import BudgetTracker, spent_gpu_s
from pgray.store.ledger import Ledger
from pgray.store.outcomes import read_result
from trainer.records.job import Job, TrialSpec
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.records.results import TrialResult
from trainer.records.trained import usable_training

_RESERVE = 1.1  # times the longest job up to now: GPU time that is reserved for the next one


class Proposer:
    """Proposes nothing; a search overrides it. It is asked for trials when a job could start and none waits."""

    @property
    def is_exhausted(self) -> bool:
        return True

    @property
    def num_to_come(self) -> int:
        """The number of trials that it has not proposed yet; each is a job."""
        return 0

    def start(self) -> None:
        """Read the ledger, in which the driver has just written which trials are asked for."""

    def propose(self) -> list[PlannedTrial]:
        return []

    def on_ended(self, entries: Sequence[LedgerEntry]) -> None:
        """Learn how trials ended for good; retries of them do not follow."""


class JobQueue:
    """The jobs of one launch. Call `start` before anything else.

    Args:
        decision: what to run.
        history: writes the ledger of the run folder.
        rules: the sweep's stopping rules.
        git_sha: of the code that runs, for the jobs' records.
        proposer: of a search.

    `trials`: every planned trial by id. `open`: job id -> job, handed out and not ended. `paused`: why nothing more starts
    although trials wait; the next run of the sweep resumes them.
    """

    def __init__(
        self,
        decision: Decision,
        layout: RunLayout,
        history: LedgerWriter,
        launch: LaunchSettings,
        rules: Sequence[StoppingRule[Any]] = (),
        git_sha: str | None = None,
        proposer: Proposer | None = None,
    ) -> None:
        self.layout, self.history, self.launch = layout, history, launch
        self.trials = {trial.trial_id: trial for trial in decision.plan.trials}
        self.open: dict[str, Job] = {}
        self.paused: str | None = None
        self.num_started = self.num_started_trials = 0
        self._decision, self._sweep = decision, decision.plan.sweep
        self._rules, self._git_sha, self._proposer = rules, git_sha, proposer or Proposer()
        self._waiting: list[list[PlannedTrial]] = decision.jobs_to_run()
        self._budget = BudgetTracker(self._sweep.file.budget, 0.0)
        self._breaker = CircuitBreaker(self._sweep.file.failures.pause_after)
        self._next_number = Counter[str]()  # train_fingerprint -> number of its next job
        self.training = set[str]()  # the jobs that began without usable trained weights; the others only export
        self._longest_gpu_s: dict[bool, float] = {}  # by whether the job trained
        self._results: dict[str, dict[int, TrialResult]] = {}  # arm -> seed -> result
        self._dropped: set[str] = set()  # arms

    def start(self) -> None:
        """Read what earlier launches have left: their costs, job numbers and results. Skip the trials of dropped arms."""
        entries = Ledger(self.layout.ledger).entries()
        self._budget = BudgetTracker(self._sweep.file.budget, spent_gpu_s(entries))
        for name in (*(path.name for path in self.layout.jobs.glob("*-*")), *(e.job_id for e in entries if e.job_id)):
            fingerprint, _, number = name.rpartition("-")
            after = int(number) + 1 if number.isdecimal() else 0
            self._next_number[fingerprint] = max(self._next_number[fingerprint], after)
        for trial in self._decision.plan.trials:
            if self._decision.actions[trial.trial_id] in ("finished", "recover"):
                self._read_result(trial)
        self._drop_arms()

    @property
    def is_done(self) -> bool:
        """Whether nothing is open and nothing more will start."""
        return not self.open and (self.paused is not None or (not self._waiting and self._proposer.is_exhausted))

    @property
    def to_come(self) -> list[JobToCome]:
        """The jobs that have not started, with those that a search will still propose."""
        waiting = [JobToCome(self._trains(group), len(group)) for group in self._waiting]
        return waiting + [JobToCome(trains=True, num_trials=1)] * self._proposer.num_to_come

    def next(self) -> Job | None:
        """Write and open the next job. Returns None if none can start now; one may later."""
        if self.paused is not None:
            return None
        group = next(self._ready(), None)
        if group is None and not self._proposer.is_exhausted:
            trials = self._proposer.propose()
            self.history.proposed(trials)
            self.trials |= {trial.trial_id: trial for trial in trials}
            self._waiting += [[trial] for trial in trials]
            group = next(self._ready(), None)
        return None if group is None else self._open(group)

    def on_ended(self, job: Job, entries: Sequence[LedgerEntry], is_stopping: bool) -> None:
        """Close a job and decide again what waits.

        Args:
            entries: how each of its trials ended.
            is_stopping: the driver is stopping its jobs, so that their endings mean nothing.
        """
        del self.open[job.job_id]
        held_gpu_s = sum(entry.gpu_held_s or 0.0 for entry in entries)
        self._budget.book(job.job_id, held_gpu_s)
        has_trained = job.job_id in self.training
        self._longest_gpu_s[has_trained] = max(held_gpu_s, self._longest_gpu_s.get(has_trained, 0.0))
        if is_stopping:
            return
        retried = [entry for entry in entries if self._is_retried(entry)]
        if retried:
            self._waiting.append([self.trials[entry.trial_id] for entry in retried])
        for entry in entries:
            self._read_result(self.trials[entry.trial_id])
        self._proposer.on_ended([entry for entry in entries if entry not in retried])
        self.paused = self.paused or self._breaker.on_ended(entries)
        self._drop_arms()

    def _ready(self) -> Iterator[list[PlannedTrial]]:
        """Yield the waiting groups that may start now.

        Two jobs of one training run may export at the same time, but while one of them trains it is the only one.
        """
        busy = {job.train_fingerprint for job in self.open.values()}
        in_training = {job.train_fingerprint for job in self.open.values() if job.job_id in self.training}
        unfinished = self._unfinished_seeds()
        held_back = set[int]().union(*(rule.held_back_seeds(self._sweep.seeds, unfinished) for rule in self._rules))
        for group in self._waiting:
            fingerprint = group[0].train_fingerprint
            is_free = fingerprint not in (busy if fingerprint in busy and self._trains(group) else in_training)
            if is_free and not {trial.seed for trial in group} & held_back:
                yield group

    def _trains(self, group: list[PlannedTrial]) -> bool:
        """Whether a job of this group must train."""
        folder = self.layout.trained(group[0].train_fingerprint)
        return usable_training(folder, (trial.config for trial in group)) is None

    def _unfinished_seeds(self) -> set[int]:
        waiting = {trial.seed for group in self._waiting for trial in group}
        return waiting | {job.config.seed for job in self.open.values()}

    def _open(self, group: list[PlannedTrial]) -> Job | None:
        fingerprint = group[0].train_fingerprint
        job = Job(
            job_id=f"{fingerprint}-{self._next_number[fingerprint]}",
            train_fingerprint=fingerprint,
            trials=[TrialSpec(trial_id=trial.trial_id, config=trial.config) for trial in group],
            git_sha=self._git_sha,
            code_sha=self.launch.code_sha,
        )
        trains = self._trains(group)
        gpu_s = self._gpu_s_to_reserve(job, trains)
        if not self._budget.can_reserve(gpu_s):
            self.paused = f"the next job may take {gpu_s / 3600:.2f} GPU-hours: {self._budget.text}"
            return None
        self._budget.reserve(job.job_id, gpu_s)
        write_job(job, self.layout)
        self._waiting.remove(group)
        self._next_number[fingerprint] += 1
        self.open[job.job_id] = job
        self.training |= {job.job_id} if trains else set()
        self.num_started += 1
        self.num_started_trials += len(job.trials)
        return job

    def _gpu_s_to_reserve(self, job: Job, trains: bool) -> float:
        """Return what the longest job of its kind has held, with a margin; before there was one, the most it may hold."""
        allowed_gpu_s = self.launch.job_timeout_s(job) * self.launch.machine.total_gpus
        longest_gpu_s = self._longest_gpu_s.get(trains)
        return min(_RESERVE * longest_gpu_s, allowed_gpu_s) if longest_gpu_s else allowed_gpu_s

    def _is_retried(self, entry: LedgerEntry) -> bool:
        num_failures = self.history.num_failures(entry.trial_id, entry.failure_kind)
        if not self._sweep.file.failures.allows_retry(entry.failure_kind, num_failures):
            return False
        self.history.retried(entry, num_failures)
        return True

    def _read_result(self, trial: PlannedTrial) -> None:
        result = read_result(self.layout.trial(trial.trial_id))
        if result is not None:
            self._results.setdefault(trial.arm, {})[trial.seed] = result

    def _drop_arms(self) -> None:
        """Skip the waiting trials of arms that a stopping rule has dropped."""
        for arm, (_, reason) in arms_to_drop(self._rules, self._results, self._unfinished_seeds()).items():
            if arm not in self._dropped:
                self._dropped.add(arm)
                skipped = [trial for group in self._waiting for trial in group if trial.arm == arm]
                self._proposer.on_ended(self.history.skipped(skipped, reason))
        kept = ([trial for trial in group if trial.arm not in self._dropped] for group in self._waiting)
        self._waiting = [group for group in kept if group]

"""What to run next: the jobs that wait, the jobs that are open, and why some trials are not run after all.

The trials of a sweep that share a training run make one job. Between two jobs everything is weighed again: failures that
are tried once more, arms that a rule or a race has made pointless, the budget, the breaker, and what a search proposes.
Ray asks for the next job; the ledger hears of every decision before anybody acts on it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pgray.execution.launchers.base import LaunchSettings
from pgray.execution.worker import write_job
from pgray.planning.planner import Decision, Plan, PlannedTrial
from pgray.scheduler.circuit_breaker import CircuitBreaker
from pgray.scheduler.ledger_writer import LedgerWriter
from pgray.stopping.pruning import seed_verdict
from pgray.stopping.racing import verdicts
from pgray.store.budget import BudgetTracker, spent_gpu_s
from pgray.store.ledger import Ledger
from pgray.store.outcomes import read_result
from trainer.records.job import Job, TrialSpec
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry
from trainer.records.results import TrialResult
from trainer.records.trained import usable_training

_RESERVE = 1.1  # of the longest job so far: what the next one may hold


class Proposer(Protocol):
    """A search: asked for trials when a job could start and none waits, told how each of them ended for good."""

    @property
    def is_exhausted(self) -> bool: ...
    def propose(self) -> list[PlannedTrial]: ...
    def on_ended(self, entries: Sequence[LedgerEntry]) -> None: ...


@dataclass
class JobQueue:
    """Begins with what a decision says is to be run.

    `paused`: why nothing more is started although trials wait; running the sweep again goes on from there.
    """

    decision: Decision
    layout: RunLayout
    history: LedgerWriter
    launch: LaunchSettings
    git_sha: str | None
    proposer: Proposer | None = None
    paused: str | None = None
    open: dict[str, Job] = field(default_factory=dict)
    num_started: int = 0
    num_started_trials: int = 0

    def __post_init__(self) -> None:
        sweep = self._plan.sweep
        self._waiting: list[list[PlannedTrial]] = self.decision.jobs_to_run()
        self.trials = {trial.trial_id: trial for trial in self._plan.trials}
        entries = Ledger(self.layout.ledger).entries()
        self._purse = BudgetTracker(sweep.file.budget, spent_gpu_s(entries))
        self._breaker = CircuitBreaker(sweep.failures.pause_after)
        self._attempts = Counter[str]()  # train_fingerprint -> number of the next job
        for name in (*(path.name for path in self.layout.jobs.glob("*-*")), *(e.job_id for e in entries if e.job_id)):
            fingerprint, _, number = name.rpartition("-")
            self._attempts[fingerprint] = max(self._attempts[fingerprint], int(number) + 1 if number.isdecimal() else 0)
        self._training: set[str] = set()  # the jobs that began without trained weights
        self._longest_gpu_s: dict[bool, float] = {}  # by whether the job was one of these
        self._results: dict[str, dict[int, TrialResult]] = {}  # arm -> seed -> result
        self._dropped: set[str] = set()
        for trial in self._plan.trials:
            if self.decision.actions[trial.trial_id] in ("finished", "recover"):
                self._learn(trial)
        if self.proposer is not None:
            states = Ledger(self.layout.ledger).states()  # as they are now: found on disk, or to be run again
            news = [*self.decision.with_action("recover"), *self.decision.with_action("run")]
            self.proposer.on_ended([states[trial.trial_id] for trial in news])
        self._drop_hopeless()

    @property
    def _plan(self) -> Plan:
        return self.decision.plan

    @property
    def is_done(self) -> bool:
        """Whether nothing is open and nothing more will be started."""
        return not self.open and (self.paused is not None or not (self._waiting or self._can_propose))

    def is_training(self, job_id: str) -> bool:
        """Whether this job began without usable trained weights."""
        return job_id in self._training

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def next(self) -> Job | None:
        """Write down and open the next job; None where there is none now, though there may be later."""
        if self.paused is not None:
            return None
        group = next(self._ready(), None)
        if group is None:
            if not self._can_propose or self.proposer is None:
                return None
            trials = self.proposer.propose()
            if not trials:
                return None
            self.history.proposed(trials)
            self.trials |= {trial.trial_id: trial for trial in trials}
            for trial in trials:
                self._waiting.append([trial])
            group = next(self._ready(), None)
            if group is None:
                return None
        return self._open(group)

    def ended(self, job: Job, entries: Sequence[LedgerEntry], is_stopping: bool) -> None:
        """Hear how the trials of an open job ended, and weigh what waits again."""
        del self.open[job.job_id]
        held = sum(entry.gpu_held_s or 0.0 for entry in entries)
        self._purse.settle(job.job_id, held)
        has_trained = job.job_id in self._training
        self._longest_gpu_s[has_trained] = max(held, self._longest_gpu_s.get(has_trained, 0.0))
        if is_stopping:
            return
        again = [entry for entry in entries if self._is_tried_again(entry)]
        if again:
            self._waiting.append([self.trials[entry.trial_id] for entry in again])
        for entry in entries:
            self._learn(self.trials[entry.trial_id])
        if self.proposer is not None:
            self.proposer.on_ended([entry for entry in entries if entry not in again])
        self.paused = self.paused or self._breaker.on_ended(entries)
        self._drop_hopeless()

    def _ready(self) -> Iterator[list[PlannedTrial]]:
        """Waiting groups that may start: nobody trains what they export or exports what they train anew, and a race has
        reached their seed."""
        busy = {job.train_fingerprint for job in self.open.values()}
        in_training = {job.train_fingerprint for job in self.open.values() if job.job_id in self._training}
        held_back = self._held_back_seeds()
        for group in self._waiting:
            fingerprint = group[0].train_fingerprint
            is_free = fingerprint not in (busy if fingerprint in busy and self._trains(group) else in_training)
            if is_free and not {trial.seed for trial in group} & held_back:
                yield group

    def _trains(self, group: list[PlannedTrial]) -> bool:
        """Whether a job of this group must train."""
        folder = self.layout.trained(group[0].train_fingerprint)
        return usable_training(folder, (trial.config for trial in group)) is None

    def _held_back_seeds(self) -> set[int]:
        """In a race the later seeds wait until every arm has had the earlier ones."""
        race, seeds = self._plan.sweep.file.race, self._plan.sweep.seeds
        if race is None:
            return set()
        unfinished = self._unfinished_seeds()
        first = next((index for index, seed in enumerate(seeds) if seed in unfinished), len(seeds))
        return set(seeds[max(first + 1, race.first) :])

    def _unfinished_seeds(self) -> set[int]:
        waiting = {trial.seed for group in self._waiting for trial in group}
        return waiting | {job.config.seed for job in self.open.values()}

    def _open(self, group: list[PlannedTrial]) -> Job | None:
        fingerprint = group[0].train_fingerprint
        job = Job(
            job_id=f"{fingerprint}-{self._attempts[fingerprint]}",
            train_fingerprint=fingerprint,
            trials=[TrialSpec(trial_id=trial.trial_id, config=trial.config) for trial in group],
            git_sha=self.git_sha,
            code_sha=self.launch.code_sha,
        )
        trains = self._trains(group)
        gpu_s = self._most_gpu_s(job, trains)
        if not self._purse.can_reserve(gpu_s):
            self.paused = f"the next job may take {gpu_s / 3600:.2f} GPU-hours: {self._purse.text}"
            return None
        self._purse.reserve(job.job_id, gpu_s)
        write_job(job, self.layout)
        self._waiting.remove(group)
        self._attempts[fingerprint] += 1
        self.open[job.job_id] = job
        self._training |= {job.job_id} if trains else set()
        self.num_started += 1
        self.num_started_trials += len(job.trials)
        return job

    def _most_gpu_s(self, job: Job, trains: bool) -> float:
        """GPU seconds to reserve: what the longest job of its sort has held, before there was one what is allowed."""
        machine = self.launch.machine
        gpus = machine.total_gpus
        longest_gpu_s = self._longest_gpu_s.get(trains)
        allowed_gpu_s = self.launch.job_timeout_s(job) * gpus
        return allowed_gpu_s if not longest_gpu_s else min(_RESERVE * longest_gpu_s, allowed_gpu_s)

    @property
    def _can_propose(self) -> bool:
        return self.proposer is not None and not self.proposer.is_exhausted

    def _is_tried_again(self, entry: LedgerEntry) -> bool:
        tries = self.history.num_failures(entry.trial_id, entry.failure_kind)
        if not self._plan.sweep.failures.allows_retry(entry.failure_kind, tries):
            return False
        self.history.tried_again(entry, tries)
        return True

    def _learn(self, trial: PlannedTrial) -> None:
        result = read_result(self.layout.trial(trial.trial_id))
        if result is not None:
            self._results.setdefault(trial.arm, {})[trial.seed] = result

    def _drop_hopeless(self) -> None:
        """Give up the waiting seeds of arms that a rule or the race has judged."""
        for arm, reason in self._judged().items():
            if arm in self._dropped:
                continue
            self._dropped.add(arm)
            pointless = [trial for group in self._waiting for trial in group if trial.arm == arm]
            killed = self.history.killed(pointless, reason)
            if self.proposer is not None:
                self.proposer.on_ended(killed)
        kept = ([trial for trial in group if trial.arm not in self._dropped] for group in self._waiting)
        self._waiting = [group for group in kept if group]

    def _judged(self) -> dict[str, str]:
        control, file = self._plan.expansion.control, self._plan.sweep.file
        judged: dict[str, str] = {}
        if file.race is not None:
            metric = file.race.metric
            unfinished = self._unfinished_seeds()  # looks at half a seed would use up the race's certainty
            values = {
                arm: {
                    s: float(v)
                    for s, r in seeds.items()
                    if s not in unfinished and (v := getattr(r, metric)) is not None
                }
                for arm, seeds in self._results.items()
            }
            judged |= verdicts(file.race, values, control)
        for rule in file.kill:
            for arm, by_seed in self._results.items():
                if rule.covers(arm, control):
                    pairs = ((r, self._results.get(control, {}).get(seed)) for seed, r in by_seed.items())
                    reasons = (seed_verdict(rule, result, other) for result, other in pairs if other is not None)
                    reason = next(filter(None, reasons), None)
                    if reason is not None:
                        judged.setdefault(arm, reason)
        return judged

"""Reads the trials of a run folder for a replay: their results and curves, and what each cost and when."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pgray.stopping.curves import Curve, read_curve
from pgray.store.exit_record import ExitRecord
from pgray.store.ledger import Ledger
from pgray.store.outcomes import read_result
from pgray.store.process_records import read_record
from trainer.records.files import read_json
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry, job_costs, last_entries, newest_trials
from trainer.records.results import TrialResult
from trainer.records.states import TrialState
from trainer.run.config import TrainConfig

ALL = -math.inf
"""A time before everything."""


class Spent(NamedTuple):
    """Job wall time, GPU time and money. `usd` is None without a price."""

    wall_s: float = 0.0
    gpu_s: float = 0.0
    usd: float | None = 0.0

    def times(self, share: float) -> "Spent":
        return Spent(self.wall_s * share, self.gpu_s * share, None if self.usd is None else self.usd * share)


def total(parts: Sequence[Spent]) -> Spent:
    """Add up; without a price for every part the sum has none."""
    prices = [part.usd for part in parts if part.usd is not None]
    usd = math.fsum(prices) if len(prices) == len(parts) else None
    return Spent(math.fsum(part.wall_s for part in parts), math.fsum(part.gpu_s for part in parts), usd)


class JobShare(NamedTuple):
    """One trial's share of one job: when the job ran (Unix time, seconds), and what the share cost."""

    start: float
    end: float
    spent: Spent


@dataclass(frozen=True)
class RecordedTrial:
    """A trial as recorded. `result`: None unless finished. `shares`: one per attempt with known times."""

    arm: str
    seed: int
    trial_id: str
    train_fingerprint: str
    result: TrialResult | None
    shares: list[JobShare]

    def spent_after(self, at: float) -> Spent:
        """Return its share of what its jobs spent after a time, over all attempts."""
        jobs = [job for job in self.shares if job.end > job.start]
        return total([job.spent.times(max(0.0, job.end - max(job.start, at)) / (job.end - job.start)) for job in jobs])

    def spent_on_export(self) -> Spent:
        """Return the cost of its export and evaluation alone, for a training run that is needed anyway."""
        whole = self.spent_after(ALL)
        if self.result is None or not whole.wall_s:
            return Spent()
        return whole.times(min(1.0, (self.result.export_s + self.result.eval_s) / whole.wall_s))


def read_trials(layout: RunLayout) -> list[RecordedTrial]:
    """Return the trials of each arm's current configuration, in the ledger's order."""
    entries = Ledger(layout.ledger).entries()
    newest, shares = newest_trials(entries).values(), _job_shares(layout, entries)
    return [
        RecordedTrial(
            entry.arm,
            entry.seed,
            name,
            entry.train_fingerprint,
            read_result(layout.trial(name)) if entry.state == TrialState.FINISHED else None,
            shares[name],
        )
        for name, entry in last_entries(entries).items()
        if name in newest
    ]


def read_trial_curve(layout: RunLayout, trial: RecordedTrial) -> Curve:
    """Return the curve of a trial's training run; empty if it or the trial's configuration is missing."""
    folder = layout.trial(trial.trial_id)
    train = read_json(folder.config).get("train", {})
    if not {"iterations", "wallclock_s"} <= train.keys():
        return {}
    limits = TrainConfig(iterations=train["iterations"], wallclock_s=train["wallclock_s"])
    trained = layout.trained(trial.train_fingerprint).events
    return read_curve(trained if trained.is_file() else folder.events, limits)


def _job_shares(layout: RunLayout, entries: Sequence[LedgerEntry]) -> dict[str, list[JobShare]]:
    costs = job_costs(entries)
    num_trials = Counter(job_id for _, job_id in costs)
    shares: dict[str, list[JobShare]] = defaultdict(list)
    for (trial_id, job_id), entry in costs.items():
        record = read_record(ExitRecord, layout.job(job_id).exit) if job_id else None
        if record and record.started_at is not None and record.ended_at is not None:
            wall_s = (record.ended_at - record.started_at) / num_trials[job_id]
            spent = Spent(wall_s, entry.gpu_held_s or 0.0, entry.cost_usd)
            shares[trial_id].append(JobShare(record.started_at, record.ended_at, spent))
    return shares

"""What a search has proposed and what came of it, as read from the ledger: its only memory. Knows nothing of Optuna.

A proposal is an arm of the sweep, `t000`, `t001`, ...; the sweep's seeds are its replicates. Its changes stand in the
ledger (`LedgerEntry.changes`), so that a search can be gone on with after a kill, with another sampler or a wider space.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

from pgray.search.space import Space
from trainer.records.ledger import LedgerEntry
from trainer.records.results import METRICS, TrialResult
from trainer.records.states import TrialState

_OPEN: tuple[TrialState, ...] = (TrialState.QUEUED, TrialState.RUNNING, TrialState.LOST)


@dataclass(frozen=True)
class SeedRow:
    """One seed of a proposal. `metrics`: the measured numeric columns of its result; empty until it has finished."""

    seed: int
    trial_id: str
    state: TrialState
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None

    @property
    def is_open(self) -> bool:
        return self.state in _OPEN


@dataclass(frozen=True)
class Proposal:
    """`changes`: dotted key -> value over the sweep's base. `seeds`: one row per seed, in the order of the ledger.

    `told_after`: how many proposals had been made when the last seed ended; None while one is open. With it, what a
    sampler knew at each proposal can be told after the fact.
    """

    name: str
    changes: dict[str, Any]
    seeds: tuple[SeedRow, ...] = ()
    told_after: int | None = None


@dataclass(frozen=True)
class Score:
    """What a proposal's seeds come to.

    `state`: open; complete; failed (a seed failed, or lacks an objective or a constraint); outside (the space has changed
    since and can no longer give it). `means`, `stds` (sample standard deviation over seeds; empty for one seed): of the
    columns of objectives and constraints. `excess`: constraint -> how far the worst seed is on its wrong side, in the
    column's unit.
    """

    state: Literal["open", "complete", "failed", "outside"]
    means: dict[str, float] = field(default_factory=dict)
    stds: dict[str, float] = field(default_factory=dict)
    excess: dict[str, float] = field(default_factory=dict)
    reason: str | None = None

    @property
    def is_feasible(self) -> bool:
        return self.state == "complete" and all(excess <= 0 for excess in self.excess.values())


def seed_row(entry: LedgerEntry, result: TrialResult | None) -> SeedRow:
    """A trial's last ledger entry and its result, if there is one, as a row of its proposal."""
    if entry.state == TrialState.FINISHED and result is None:
        return SeedRow(
            entry.seed, entry.trial_id, TrialState.LOST, reason="its result cannot be read; a run makes it anew"
        )
    measured = (
        {}
        if result is None or entry.state != TrialState.FINISHED
        else {name: getattr(result, name) for name in METRICS}
    )
    metrics = {name: value for name, value in measured.items() if value is not None}
    return SeedRow(entry.seed, entry.trial_id, entry.state, metrics, entry.reason)


def read_proposals(entries: Iterable[LedgerEntry], read_result: Callable[[str], TrialResult | None]) -> list[Proposal]:
    """The proposals of a ledger, in the order in which they were made.

    Args:
        entries: the whole ledger in order. Arms without `changes` are not a search's and are left out. Of two trials
            with one arm and seed the one mentioned last counts, as in the table.
        read_result: trial id -> its result, None where there is none; asked about finished trials only.
    """
    changes: dict[str, dict[str, Any]] = {}
    last: dict[str, dict[int, LedgerEntry]] = {}
    told_after: dict[str, int] = {}
    for entry in entries:
        arm = entry.arm
        if entry.changes is not None:
            changes[arm] = entry.changes  # a key keeps its first position
        if arm not in changes:
            continue
        last.setdefault(arm, {})[entry.seed] = entry
        if any(seed.state in _OPEN for seed in last[arm].values()):
            told_after.pop(arm, None)
        else:
            told_after.setdefault(arm, len(changes))
    proposals = []
    for arm, seeds in last.items():
        rows = [
            seed_row(e, read_result(e.trial_id) if e.state == TrialState.FINISHED else None) for e in seeds.values()
        ]
        is_open = any(row.is_open for row in rows)
        proposals.append(Proposal(arm, changes[arm], tuple(rows), None if is_open else told_after[arm]))
    return proposals


def score(proposal: Proposal, space: Space) -> Score:
    """What a proposal's seeds come to in a search. Seeds that the sweep no longer asks for, unfinished, do not count."""
    if not space.fits(proposal.changes):
        return Score("outside", reason="the search space has changed since")
    rows = [row for row in proposal.seeds if row.state != TrialState.INVALID]
    if proposal.told_after is None:
        return Score("open")
    bad = next((row for row in rows if row.state != TrialState.FINISHED), None)
    if bad is not None or not rows:
        return Score("failed", reason=f"seed {bad.seed} {bad.state}: {bad.reason}" if bad else "no longer asked for")
    bounds = space.search.bounds
    columns = dict.fromkeys([*space.objectives, *(bound.column for bound in bounds)])
    missing = [name for name in columns if any(name not in row.metrics for row in rows)]
    if missing:
        return Score("failed", reason=f"{missing[0]} was not measured")
    values = {name: [row.metrics[name] for row in rows] for name in columns}
    return Score(
        "complete",
        means={name: fmean(column) for name, column in values.items()},
        stds={name: stdev(column) for name, column in values.items()} if len(rows) > 1 else {},
        excess={bound.text: max(map(bound.excess, values[bound.column])) for bound in bounds},
    )

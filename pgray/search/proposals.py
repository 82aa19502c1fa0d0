"""The proposals of a search and their results, read from the ledger, which is the only memory of a search.

A proposal is an arm of the sweep, `t000`, `t001`, ..., that runs with the sweep's seeds. The ledger has its changes
(`LedgerEntry.changes`), so that a search can be resumed after a kill, also with another sampler or a wider space.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

from pgray.search.space import Space
from trainer.records.ledger import LedgerEntry, newest_trials
from trainer.records.results import METRICS, TrialResult
from trainer.records.states import TrialState

_OPEN = (TrialState.QUEUED, TrialState.RUNNING, TrialState.LOST)  # a lost trial is run again


@dataclass(frozen=True)
class SeedRow:
    """One seed of a proposal. `metrics`: the numeric columns that its result has; empty until it has finished."""

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
    """`changes`: dotted key -> value on top of the sweep's base. `seeds`: one row per seed, in the ledger's order.

    `ended_after`: number of proposals that existed when the last seed ended; None while a seed is open. It shows which
    results the sampler had at each draw. `began_at`, `ended_at`: when its first seed was started and its last one ended, Unix
    seconds; only `read_proposals` knows them.
    """

    name: str
    changes: dict[str, Any]
    seeds: tuple[SeedRow, ...] = ()
    ended_after: int | None = None
    began_at: float | None = field(default=None, compare=False)
    ended_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Score:
    """The result of a proposal over its seeds.

    `state`: open; complete; failed (a seed failed, or lacks an objective or a constraint); outside (the space has changed
    and can no longer give this proposal). `means`, `stds` (sample standard deviation, empty for one seed): of the columns
    of objectives and constraints. `excess`: constraint -> how far the worst seed is on its wrong side, in the column's
    unit.
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
    """Return the row of a seed from its trial's last ledger entry and its result, which is used if it has finished."""
    if entry.state != TrialState.FINISHED:
        return SeedRow(entry.seed, entry.trial_id, entry.state, reason=entry.reason)
    if result is None:
        return SeedRow(entry.seed, entry.trial_id, TrialState.LOST, reason="unreadable result; the next run repeats it")
    metrics = {name: value for name in METRICS if (value := getattr(result, name)) is not None}
    return SeedRow(entry.seed, entry.trial_id, entry.state, metrics, entry.reason)


def read_proposals(entries: Iterable[LedgerEntry], read_result: Callable[[str], TrialResult | None]) -> list[Proposal]:
    """Return the proposals in a ledger, in the order in which they were made.

    Args:
        entries: the whole ledger in order. Arms without `changes` do not belong to a search and are left out. Only
            trials of an arm's newest configuration count, as in the table.
        read_result: trial id -> its result or None; called for finished trials only.
    """
    changes: dict[str, dict[str, Any]] = {}
    last: dict[str, dict[int, LedgerEntry]] = {}
    ended_after: dict[str, int] = {}
    began_at: dict[str, float] = {}
    entries = list(entries)
    newest = set(newest_trials(entries).values())
    for entry in entries:
        arm = entry.arm
        if entry.changes is not None:
            changes[arm] = entry.changes  # a key keeps its first position
        if arm not in changes or entry.trial_id not in newest:
            continue
        last.setdefault(arm, {})[entry.seed] = entry
        if entry.state == TrialState.RUNNING:
            began_at.setdefault(arm, entry.at)
        if any(seed.state in _OPEN for seed in last[arm].values()):
            ended_after.pop(arm, None)
        else:
            ended_after.setdefault(arm, len(changes))
    proposals = []
    for arm, seeds in ((arm, last[arm]) for arm in changes if arm in last):
        results = (read_result(e.trial_id) if e.state == TrialState.FINISHED else None for e in seeds.values())
        rows = tuple(map(seed_row, seeds.values(), results))
        is_open = any(row.is_open for row in rows)
        ended = (None, None) if is_open else (ended_after[arm], max(entry.at for entry in seeds.values()))
        proposals.append(Proposal(arm, changes[arm], rows, ended[0], began_at.get(arm), ended[1]))
    return proposals


def score(proposal: Proposal, space: Space) -> Score:
    """Return a proposal's score in a search. Unfinished seeds that the sweep no longer asks for are ignored."""
    if not space.contains(proposal.changes):
        return Score("outside", reason="the search space has changed since")
    if proposal.ended_after is None:
        return Score("open")
    rows = [row for row in proposal.seeds if row.state != TrialState.INVALID]
    failed = next((row for row in rows if row.state != TrialState.FINISHED), None)
    if failed is not None or not rows:
        reason = f"seed {failed.seed} {failed.state}: {failed.reason}" if failed else "no longer asked for"
        return Score("failed", reason=reason)
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

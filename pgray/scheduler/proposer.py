"""Connects a search with a running sweep: turns proposals into trials, and passes their outcomes to the study."""

from collections.abc import Iterable, Sequence

from pgray.planning.planner import Plan, PlannedTrial, plan_proposal
from pgray.scheduler.queue import Proposer
from pgray.search.proposals import SeedRow, read_proposals, seed_row
from pgray.search.study import Study
from pgray.store.outcomes import read_result
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry, read_ledger
from trainer.records.states import TrialState


class Searcher(Proposer):
    """The proposer of a sweep with `search:`. It keeps no state of its own: the ledger has everything."""

    def __init__(self, plan: Plan, study: Study, layout: RunLayout) -> None:
        self._plan, self._study, self._layout = plan, study, layout
        self._rows = {p.name: {row.seed: row for row in p.seeds} for p in study.proposals}

    def start(self) -> None:
        entries = read_ledger(self._layout.ledger)[0]
        for proposal in read_proposals(entries, lambda name: read_result(self._layout.trial(name))):
            if proposal.name in self._rows:  # without those of another configuration of the arm
                self._rows[proposal.name] = {row.seed: row for row in proposal.seeds}
                self._study.tell(proposal.name, proposal.seeds)

    @property
    def is_exhausted(self) -> bool:
        return len(self._rows) >= self._study.search.trials or self._study.why_exhausted is not None

    @property
    def num_to_come(self) -> int:
        left = 0 if self.is_exhausted else self._study.search.trials - len(self._rows)
        return left * len(self._plan.sweep.seeds)

    def propose(self) -> list[PlannedTrial]:
        """Return the trials of the next proposal; [] if `search.parallel` are open already, or the space is exhausted."""
        at_once = self._study.search.parallel
        if at_once is not None and self._study.num_open >= at_once:
            return []
        proposal = self._study.ask()
        if proposal is None:
            return []
        trials = plan_proposal(self._plan, proposal.name, proposal.changes)
        self._tell(proposal.name, (SeedRow(t.seed, t.trial_id, TrialState.QUEUED) for t in trials))
        return trials

    def on_ended(self, entries: Sequence[LedgerEntry]) -> None:
        """Pass on how trials ended for good, except those of the control."""
        for entry in entries:
            if entry.arm in self._rows:
                result = read_result(self._layout.trial(entry.trial_id)) if entry.state == TrialState.FINISHED else None
                self._tell(entry.arm, [seed_row(entry, result)])

    def _tell(self, name: str, rows: Iterable[SeedRow]) -> None:
        known = self._rows.setdefault(name, {})
        known |= {row.seed: row for row in rows}  # by seed: a sweep that was edited has new trials for old seeds
        self._study.tell(name, known.values())

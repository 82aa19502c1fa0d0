"""A search with Optuna's ask and tell. The ledger is the memory; Optuna only computes the next draw.

For each draw the Optuna study is made again, in memory, from the proposals. So there is one source of truth, and proposal k
depends only on the search, the sampler's seed, k, and the results at that time: a search that is killed and resumed makes
the same proposals as one that is not. For samplers that keep their state in the study, every ask and tell is repeated.

No configuration is proposed twice. A draw that repeats an earlier one or is not valid is drawn again with another seed,
then at random; if that gives nothing new, the space counts as exhausted and the search ends.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler

from pgray.search.export import ExportedStudy, export
from pgray.search.optuna_adapter import ScoredProposals, optuna_study, quiet, suggest
from pgray.search.proposals import Proposal, Score, SeedRow, score
from pgray.search.samplers import load_sampler
from pgray.search.space import BuildConfig, make_space
from pgray.spec.expressions import Condition
from pgray.spec.search import Search
from trainer.errors import InputError

_MAX_SAMPLER_DRAWS = 20  # of one proposal by the sampler, before it is drawn at random
_MAX_RANDOM_DRAWS = 300  # of one proposal at random, before the space counts as exhausted
MIN_FOR_IMPORTANCES = 20  # feasible proposals: PED-ANOVA compares the best tenth with all, and one is too few


class Study:
    """The search of one sweep: its proposals, the next one, and the best ones.

    Args:
        name: the sweep's name.
        search: the section `search:`.
        build: builds the config of a proposal; see `BuildConfig`.
        sampler_seed: 0 or more; another seed gives other proposals.
        proposals: the earlier proposals in order, as `read_proposals` returns them.
        where: conditions that a proposal's config must meet.
        origin: names the sweep file in errors.
    Raises:
        InputError: the search does not fit the base; see `make_space`.
    """

    def __init__(
        self,
        name: str,
        search: Search,
        build: BuildConfig,
        sampler_seed: int,
        proposals: Iterable[Proposal] = (),
        where: Sequence[Condition] = (),
        origin: str = "<sweep>",
    ) -> None:
        self.name, self.search = name, search
        self.space = make_space(search, build, origin)
        self.why_exhausted: str | None = None
        self._build, self._seed, self._where = build, sampler_seed, where
        self._scored = {proposal.name: (proposal, score(proposal, self.space)) for proposal in proposals}

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        return tuple(proposal for proposal, _ in self._scored.values())

    @property
    def num_open(self) -> int:
        """The number of proposals with a seed that has not ended."""
        return sum(proposal.ended_after is None for proposal in self.proposals)

    @property
    def columns(self) -> list[str]:
        """The objectives, then the other columns with a constraint."""
        return list(dict.fromkeys([*self.space.objectives, *(bound.column for bound in self.search.bounds)]))

    def score(self, name: str) -> Score:
        return self._scored[name][1]

    def ask(self) -> Proposal | None:
        """Return the next proposal; None if all `trials` have been proposed or the space is exhausted.

        Write it to the ledger before the next ask or tell.
        """
        if len(self._scored) >= self.search.trials or self.why_exhausted:
            return None
        numbers = [int(name[1:]) for name in self._scored if name[:1] == "t" and name[1:].isdecimal()]
        index = max(numbers, default=-1) + 1  # not their count: a line of the ledger may be lost
        earlier = [proposal.changes for proposal in self.proposals]
        num_draws, num_repeated, problem = _MAX_SAMPLER_DRAWS + _MAX_RANDOM_DRAWS, 0, ""
        for attempt in range(num_draws):
            try:
                changes = self._draw(index, attempt)
                if changes in earlier:
                    num_repeated += 1
                    continue
                self._check(changes)
            except InputError as error:
                problem = f"; others are not allowed, such as {error}"
                continue
            proposal = Proposal(f"t{index:03d}", changes)
            self._scored[proposal.name] = proposal, score(proposal, self.space)
            return proposal
        self.why_exhausted = f"of {num_draws} draws {num_repeated} had been proposed before{problem}"
        return None

    def tell(self, name: str, rows: Iterable[SeedRow]) -> Score:
        """Record the seeds of a proposal, replacing earlier ones. The sampler gets the score once all seeds have ended.

        The score is the mean of each objective over the seeds. A constraint is broken if one seed breaks it; a proposal
        has failed if a seed failed, was killed or lacks a column.

        Args:
            name: of a proposal that was asked for or read from the ledger.
            rows: all its seeds.
        """
        before, seeds = self._scored[name][0], tuple(rows)
        is_open = any(row.is_open for row in seeds)
        ended_after = None if is_open else before.ended_after or len(self._scored)
        proposal = replace(before, seeds=seeds, ended_after=ended_after)
        self._scored[name] = proposal, score(proposal, self.space)
        return self._scored[name][1]

    def best(self) -> list[Proposal]:
        """Return the best feasible proposals, for several objectives their Pareto set, ordered by the first objective.

        Ties give more than one.
        """
        column, direction = next(iter(self.space.objectives.items()))
        sign = 1 if direction == "min" else -1
        with quiet():
            front = optuna_study(self.space, self._feasible()).best_trials
        best = [self._scored[trial.user_attrs["name"]] for trial in front]
        return [proposal for proposal, _ in sorted(best, key=lambda pair: sign * pair[1].means[column])]

    def ranked(self, column: str | None = None) -> list[Proposal]:
        """Return all proposals: feasible ones, then those that break a constraint, then those without a score.

        Args:
            column: orders the scored ones; default: the first objective. A constraint's column is ordered from its allowed
                side.
        """
        column = column or next(iter(self.space.objectives))
        bounds = {bound.column: bound.sign for bound in self.search.bounds}
        is_max = self.space.objectives.get(column) == "max" or bounds.get(column, 1) < 0
        order = {"complete": 1, "failed": 2, "outside": 3, "open": 4}

        def key(pair: tuple[Proposal, Score]) -> tuple[int, float]:
            scored = pair[1]
            value = scored.means.get(column, 0.0)
            return 0 if scored.is_feasible else order[scored.state], -value if is_max else value

        return [proposal for proposal, _ in sorted(self._scored.values(), key=key)]

    def importances(self) -> dict[str, float]:
        """Return key -> its share, 0 to 1, in what separates the best tenth of the feasible proposals, largest first.

        {} below 20 feasible proposals. With several objectives, the best tenth is the one nearest to the Pareto front.
        Source: PED-ANOVA, Watanabe et al. 2023, arXiv:2304.10255, as in Optuna.
        """
        feasible = self._feasible()
        if len(feasible) < MIN_FOR_IMPORTANCES:
            return {}
        with quiet():
            shares = optuna.importance.get_param_importances(optuna_study(self.space, feasible))
        return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))

    def summary(self) -> dict[str, Any]:
        """Return the search and its proposals as JSON values; `values` are means over seeds."""
        return {
            "sweep": self.name,
            "sampler": self.search.sampler,
            "objectives": self.space.objectives,
            "constraints": [bound.text for bound in self.search.bounds],
            "num_asked_for": self.search.trials,
            "why_exhausted": self.why_exhausted,
            "best": [proposal.name for proposal in self.best()],
            "importances": self.importances(),
            "trials": [_summary(*pair) for pair in self._scored.values()],
        }

    def export(self, storage_url: str) -> ExportedStudy:
        """Copy the search into an Optuna storage, under the sweep's name; see `pgray/search/export.py`."""
        return export(self.name, self.space, list(self._scored.values()), storage_url)

    def _draw(self, index: int, attempt: int) -> dict[str, Any]:
        """Draw proposal `index`. Raises InputError if a condition cannot be evaluated."""
        with quiet():
            if attempt < _MAX_SAMPLER_DRAWS:
                study = optuna_study(self.space, list(self._scored.values()), self._sampler)
                study.sampler = self._sampler(index, attempt)
            else:
                study = optuna.create_study(sampler=RandomSampler(seed=self._seed_of(index, attempt)))
            trial = study.ask()
            return self.space.draw(lambda key: suggest(trial, key, self.search.space[key]))

    def _sampler(self, index: int, attempt: int = 0) -> BaseSampler:
        return load_sampler(self.search.sampler).build(self.search, self._seed_of(index, attempt))

    def _seed_of(self, index: int, attempt: int) -> int:
        return int(np.random.SeedSequence([self._seed, index, attempt]).generate_state(1)[0])

    def _check(self, changes: dict[str, Any]) -> None:
        config = self._build(changes, "search")
        for condition in self._where:
            if not condition.holds(config):
                raise InputError("search", "where", condition.text, "excludes it")

    def _feasible(self) -> ScoredProposals:
        return [pair for pair in self._scored.values() if pair[1].is_feasible]


def _summary(proposal: Proposal, score: Score) -> dict[str, Any]:
    return {
        "name": proposal.name,
        "state": score.state,
        "reason": score.reason,
        "params": proposal.changes,
        "values": score.means,
        "stds": score.stds,
        "excess": score.excess,
        "is_feasible": score.is_feasible,
        "seeds": {str(row.seed): row.state for row in proposal.seeds},
        "trial_ids": [row.trial_id for row in proposal.seeds],
    }

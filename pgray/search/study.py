"""A search by Optuna's ask and tell. The ledger remembers; Optuna only computes the next draw.

Each time something is asked of Optuna, its study is made anew from the proposals, in memory. So there is one truth; and
proposal k is a function of the search, the sampler's seed, k, and what was known when it was asked for: a search that was
killed and gone on with makes the proposals that it would have made. Samplers whose state is in the study itself (NSGA-II:
generations; CMA-ES: its distribution) are led through the same asks and tells again, since added trials carry no state.

Nothing is paid twice. A draw that has been proposed before, or that makes no valid configuration, is drawn again with
another seed, then at random; where that brings nothing new either, the space counts as exhausted and the search ends.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import RandomSampler

from pgray.search.optuna_adapter import Scored, as_study, export, make_sampler, quiet, suggest, without_password
from pgray.search.proposals import Proposal, Score, SeedRow, score
from pgray.search.space import Build, make_space
from pgray.spec.expressions import Condition
from pgray.spec.search import Search
from trainer.errors import InputError
from trainer.records.files import write_json

_SAMPLER_DRAWS = 20  # of one proposal by the sampler, before it is drawn at random
_RANDOM_DRAWS = 300  # of one proposal at random, before the space counts as exhausted
MIN_FOR_IMPORTANCES = 20  # feasible trials: PED-ANOVA compares the best tenth with all, and one is no group


class Study:
    """The search of one sweep: the proposals made so far, the next one, the best ones.

    Args:
        name: the sweep's.
        search: the section `search:`.
        build: changes and where they come from -> config; see `space.Build`.
        sampler_seed: 0 or more; with another one, other proposals are made.
        proposals: what has been proposed before, in order, as `read_proposals` gives it.
        where: conditions that a proposal's config must meet.
        origin: names the sweep file in errors.
    Raises:
        InputError: the search does not fit the base; see `space.make_space`.
    """

    def __init__(
        self,
        name: str,
        search: Search,
        build: Build,
        sampler_seed: int,
        proposals: Iterable[Proposal] = (),
        where: Sequence[Condition] = (),
        origin: str = "<sweep>",
    ) -> None:
        self.name, self.search = name, search
        self.space = make_space(search, build, origin)
        self.why_exhausted: str | None = None
        self._build, self._seed, self._where = build, sampler_seed, where
        self._proposals = {proposal.name: proposal for proposal in proposals}
        self._scores = {proposal.name: score(proposal, self.space) for proposal in self._proposals.values()}

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        return tuple(self._proposals.values())

    @property
    def num_open(self) -> int:
        """Proposals of which a seed has not ended yet."""
        return sum(proposal.told_after is None for proposal in self._proposals.values())

    def score(self, name: str) -> Score:
        return self._scores[name]

    def ask(self) -> Proposal | None:
        """The next proposal, open until it is told; None where `trials` have been made or the space is exhausted.

        Write it to the ledger before the next ask or tell.
        """
        if len(self._proposals) >= self.search.trials or self.why_exhausted:
            return None
        index = self._next_index()
        made = [proposal.changes for proposal in self._proposals.values()]
        num_repeated, problem = 0, ""
        for attempt in range(_SAMPLER_DRAWS + _RANDOM_DRAWS):
            try:
                changes = self._draw(index, attempt)
                if changes in made:
                    num_repeated += 1
                    continue
                self._check(changes)
            except InputError as error:
                problem = f"; others are not allowed, such as {error}"
                continue
            self._set(Proposal(f"t{index:03d}", changes))
            return self._proposals[f"t{index:03d}"]
        num_draws = _SAMPLER_DRAWS + _RANDOM_DRAWS
        self.why_exhausted = f"of {num_draws} draws {num_repeated} had been proposed before{problem}"
        return None

    def tell(self, name: str, rows: Iterable[SeedRow]) -> Score:
        """Say how the seeds of a proposal stand. The sampler hears of it once all of them have ended.

        It hears the mean over the seeds of each objective. A constraint is broken if one seed breaks it; a failed, killed
        or unmeasured seed fails the proposal. Telling again replaces what was told before.

        Args:
            name: of a proposal that was asked for or read from the ledger.
            rows: all its seeds.
        """
        before, seeds = self._proposals[name], tuple(rows)
        is_open = any(row.is_open for row in seeds)
        told_after = None if is_open else before.told_after or len(self._proposals)
        self._set(replace(before, seeds=seeds, told_after=told_after))
        return self._scores[name]

    def best(self) -> list[Proposal]:
        """The best of the feasible proposals; with several objectives, their Pareto set.

        More than one in a tie as well, none where nothing is feasible. In the order of the first objective.
        """
        column, direction = next(iter(self.space.objectives.items()))
        sign = 1 if direction == "min" else -1
        with quiet():
            front = as_study(self.space, self._feasible()).best_trials
        names = sorted((t.user_attrs["name"] for t in front), key=lambda name: sign * self._scores[name].means[column])
        return [self._proposals[name] for name in names]

    def importances(self) -> dict[str, float]:
        """Key -> its share, 0 to 1, in being among the best tenth of the feasible proposals, most important first.

        {} below 20 feasible proposals. With several objectives, the best tenth is that nearest to the Pareto front.
        Source: PED-ANOVA, Watanabe et al. 2023, arXiv:2304.10255, as in Optuna.
        """
        feasible = self._feasible()
        if len(feasible) < MIN_FOR_IMPORTANCES:
            return {}
        with quiet():
            shares = optuna.importance.get_param_importances(as_study(self.space, feasible))
        return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))

    def summary(self) -> dict[str, Any]:
        """The search and all its proposals as plain values; `values` are means over seeds."""
        return {
            "sweep": self.name,
            "sampler": self.search.sampler,
            "objectives": self.space.objectives,
            "constraints": [bound.text for bound in self.search.bounds],
            "num_asked_for": self.search.trials,
            "why_exhausted": self.why_exhausted,
            "best": [proposal.name for proposal in self.best()],
            "importances": self.importances(),
            "trials": [self._summary_of(*pair) for pair in self._scored()],
        }

    def write_summary(self, path: Path) -> None:
        """Write `summary()` as JSON."""
        write_json(path, self.summary())

    def export(self, storage_url: str) -> dict[str, Any]:
        """Copy the search into an Optuna storage, under the sweep's name; see `optuna_study.export`."""
        num_trials = export(self.name, self.space, self._scored(), storage_url)
        return {"study": self.name, "storage": without_password(storage_url), "num_trials": num_trials}

    def _next_index(self) -> int:
        numbers = [int(name[1:]) for name in self._proposals if name[:1] == "t" and name[1:].isdecimal()]
        return max(numbers, default=-1) + 1  # not their count: a line of the ledger may be lost

    def _draw(self, index: int, attempt: int) -> dict[str, Any]:
        """Draw proposal `index`. Raises InputError where a condition cannot be decided."""
        with quiet():
            if attempt < _SAMPLER_DRAWS:
                study = as_study(self.space, self._scored(), self._sampler_of())
                study.sampler = make_sampler(self.space, self._seed_of(index, attempt))
            else:
                study = optuna.create_study(sampler=RandomSampler(seed=self._seed_of(index, attempt)))
            trial = study.ask()
            return self.space.draw(lambda key: suggest(trial, key, self.search.space[key]))

    def _sampler_of(self) -> Callable[[int], optuna.samplers.BaseSampler]:
        return lambda index: make_sampler(self.space, self._seed_of(index, 0))

    def _seed_of(self, index: int, attempt: int) -> int:
        return int(np.random.SeedSequence([self._seed, index, attempt]).generate_state(1)[0])

    def _check(self, changes: dict[str, Any]) -> None:
        config = self._build(changes, "search")
        for condition in self._where:
            if not condition.holds(config):
                raise InputError("search", "where", condition.text, "drops it")

    def _set(self, proposal: Proposal) -> None:
        self._proposals[proposal.name] = proposal
        self._scores[proposal.name] = score(proposal, self.space)

    def _scored(self) -> Scored:
        return [(proposal, self._scores[name]) for name, proposal in self._proposals.items()]

    def _feasible(self) -> Scored:
        return [pair for pair in self._scored() if pair[1].is_feasible]

    def _summary_of(self, proposal: Proposal, score: Score) -> dict[str, Any]:
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

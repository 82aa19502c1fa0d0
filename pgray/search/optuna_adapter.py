"""Proposals as trials of an Optuna study in memory. `pgray/search/export.py` writes them to a storage."""

import json
import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from pgray.search.proposals import Proposal, Score
from pgray.search.samplers import load_sampler
from pgray.search.space import Space
from pgray.spec.search import Dimension

ScoredProposals = Sequence[tuple[Proposal, Score]]

_STATES = {"open": TrialState.RUNNING, "complete": TrialState.COMPLETE}  # all others have failed


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's progress on standard error and its warnings about experimental features."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)  # PED-ANOVA warns about few trials
            yield
    finally:
        optuna.logging.set_verbosity(before)


def suggest(trial: optuna.Trial, key: str, dimension: Dimension) -> Any:
    """Draw a key's value, in the type that the configuration expects."""
    if dimension.choice is not None:
        labels = [_label(choice) for choice in dimension.choice]
        return dimension.choice[labels.index(trial.suggest_categorical(key, labels))]
    low, high = dimension.ends
    if dimension.integers is not None:
        return int(trial.suggest_int(key, low, high))
    return float(trial.suggest_float(key, low, high, log=dimension.log_uniform is not None))  # may be a NumPy number


def _distribution(dimension: Dimension) -> BaseDistribution:
    """Return the distribution that `suggest` draws from."""
    if dimension.choice is not None:
        return CategoricalDistribution([_label(choice) for choice in dimension.choice])
    if dimension.integers is not None:
        return IntDistribution(*dimension.ends)
    return FloatDistribution(*dimension.ends, log=dimension.log_uniform is not None)


def _label(choice: Any) -> Any:
    """Return a choice in a form that Optuna can store."""
    return json.dumps(choice) if isinstance(choice, list) else choice


def optuna_study(
    space: Space, scored: ScoredProposals, sampler_of: Callable[[int], BaseSampler] | None = None
) -> optuna.Study:
    """Return an Optuna study in memory with the proposals as its trials.

    Args:
        sampler_of: index of a proposal -> the sampler that drew it. Needed to draw further proposals, since some samplers
            keep their state in the study.
    """
    study = optuna.create_study(directions=directions(space))
    if sampler_of is not None and load_sampler(space.search.sampler).keeps_state_in_study:
        _replay(study, space, scored, sampler_of)
    else:
        study.add_trials([frozen_trial(space, *pair) for pair in scored])
    return study


def _replay(
    study: optuna.Study, space: Space, scored: ScoredProposals, sampler_of: Callable[[int], BaseSampler]
) -> None:
    """Ask for every proposal and tell every score again, in the original order."""
    asked: dict[str, optuna.Trial] = {}
    ended: dict[int, list[tuple[Proposal, Score]]] = defaultdict(list)
    for pair in scored:
        ended[pair[0].ended_after or len(scored) + 1].append(pair)
    for index in range(len(scored) + 1):
        for proposal, score in ended[index]:
            if proposal.name in asked:
                _tell(study, asked[proposal.name], space, score)
        if index < len(scored) and scored[index][1].state != "outside":
            proposal = scored[index][0]
            study.sampler = sampler_of(index)
            study.enqueue_trial(_params(proposal))
            trial = study.ask(_distributions(space, proposal))
            assert trial.relative_params is not None  # the access makes the sampler draw and store its state
            asked[proposal.name] = trial


def _tell(study: optuna.Study, trial: optuna.Trial, space: Space, score: Score) -> None:
    reads_constraints = load_sampler(space.search.sampler).constraints
    if score.state != "complete" or not (reads_constraints or score.is_feasible):
        study.tell(trial, state=TrialState.FAIL)
        return
    if reads_constraints:
        for text, excess in score.excess.items():
            trial.set_constraint(text, excess)
    study.tell(trial, _values(space, score))


def frozen_trial(space: Space, proposal: Proposal, score: Score) -> FrozenTrial:
    """Return a proposal as an Optuna trial, without parameters if it is outside the space."""
    is_complete, is_inside = score.state == "complete", score.state != "outside"
    columns = sorted({*space.objectives, *(bound.column for bound in space.search.bounds)})
    attributes = {
        "name": proposal.name,
        "changes": proposal.changes,
        "trial_ids": [row.trial_id for row in proposal.seeds],
        "seeds": {str(row.seed): {c: row.metrics.get(c) for c in columns} for row in proposal.seeds},
        "stds": score.stds,
        "reason": score.reason,
    }
    return create_trial(
        state=_STATES.get(score.state, TrialState.FAIL),
        values=_values(space, score) if is_complete else None,
        params=_params(proposal) if is_inside else {},
        distributions=_distributions(space, proposal) if is_inside else {},
        constraints=score.excess if is_complete else None,
        user_attrs=attributes,
    )


def directions(space: Space) -> list[str]:
    """Return Optuna's words for the directions of the objectives."""
    return ["minimize" if direction == "min" else "maximize" for direction in space.objectives.values()]


def _params(proposal: Proposal) -> dict[str, Any]:
    return {key: _label(value) for key, value in proposal.changes.items()}


def _distributions(space: Space, proposal: Proposal) -> dict[str, BaseDistribution]:
    return {key: _distribution(space.search.space[key]) for key in proposal.changes}


def _values(space: Space, score: Score) -> list[float]:
    return [score.means[column] for column in space.objectives]

"""Proposals as an Optuna study: in memory for its samplers, and in any storage for its dashboard."""

import json
import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from pgray.search.proposals import Proposal, Score
from pgray.search.space import Space
from pgray.spec.search import Dimension
from trainer.errors import InputError

Scored = Sequence[tuple[Proposal, Score]]

_STATE_IN_STUDY = ("nsga2", "cmaes")  # these keep generations and distributions in what they write into a study
_STATES = {
    "open": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "outside": TrialState.FAIL,
}
_MARK = "pgray_sweep"  # user attribute of a study that was exported from here


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its progress on standard error and without warnings about what it calls experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)  # of PED-ANOVA, about few trials
            yield
    finally:
        optuna.logging.set_verbosity(before)


def make_sampler(space: Space, seed: int) -> BaseSampler:
    """The sampler that a search asks for, in the state of a new one."""
    search = space.search
    match search.sampler:
        case "random":
            return RandomSampler(seed=seed)
        case "tpe":
            # Grouped by which keys occur together, so that conditional keys are not drawn one by one.
            return TPESampler(seed=seed, group=bool(search.when) and len(space.objectives) == 1)
        case "gp":
            return GPSampler(seed=seed)
        case "cmaes":
            return CmaEsSampler(seed=seed)
        case "nsga2":  # Optuna's own default, 50, would leave most searches in the first, random generation
            return NSGAIISampler(seed=seed, population_size=min(max(search.trials // 5, 4), 50))


def distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choice is not None:
        return CategoricalDistribution([_label(choice) for choice in dimension.choice])
    low, high = dimension.ends
    if dimension.integers is not None:
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=dimension.log_uniform is not None)


def suggest(trial: optuna.Trial, key: str, dimension: Dimension) -> Any:
    """Draw a key's value, in the type that the configuration has."""
    if dimension.choice is not None:
        labels = [_label(choice) for choice in dimension.choice]
        return dimension.choice[labels.index(trial.suggest_categorical(key, labels))]
    low, high = dimension.ends
    if dimension.integers is not None:
        return int(trial.suggest_int(key, low, high))
    return float(trial.suggest_float(key, low, high, log=dimension.log_uniform is not None))  # may be NumPy's


def _label(choice: Any) -> Any:
    """A choice as Optuna can store it."""
    return json.dumps(choice) if isinstance(choice, list) else choice


def as_study(space: Space, scored: Scored, sampler_of: Callable[[int], BaseSampler] | None = None) -> optuna.Study:
    """An Optuna study in memory that knows the proposals.

    Args:
        sampler_of: index of a proposal -> the sampler that made it; needed where samplers keep their state in the study.
    """
    study = optuna.create_study(directions=_directions(space))
    if sampler_of is not None and space.search.sampler in _STATE_IN_STUDY:
        _replay(study, space, scored, sampler_of)
    else:
        study.add_trials([frozen_trial(space, *pair) for pair in scored])
    return study


def _replay(study: optuna.Study, space: Space, scored: Scored, sampler_of: Callable[[int], BaseSampler]) -> None:
    """Ask for and tell every proposal again, in the order in which it happened."""
    asked: dict[str, optuna.Trial] = {}
    tells: dict[int, list[tuple[Proposal, Score]]] = defaultdict(list)
    for pair in scored:
        tells[pair[0].told_after or len(scored) + 1].append(pair)
    for index in range(len(scored) + 1):
        for proposal, score in tells[index]:
            if proposal.name in asked:
                _tell(study, asked[proposal.name], space, score)
        if index < len(scored) and scored[index][1].state != "outside":
            proposal = scored[index][0]
            study.sampler = sampler_of(index)
            study.enqueue_trial(_params(proposal))
            trial = study.ask({key: distribution(space.search.space[key]) for key in proposal.changes})
            assert trial.relative_params is not None  # read so that the sampler draws, and writes down its state
            asked[proposal.name] = trial


def _tell(study: optuna.Study, trial: optuna.Trial, space: Space, score: Score) -> None:
    # CMA-ES knows no constraints; a draw that breaks one is thrown away, as its authors advise for such cases.
    is_unusable = space.search.sampler == "cmaes" and not score.is_feasible
    if score.state != "complete" or is_unusable:
        study.tell(trial, state=TrialState.FAIL)
        return
    if space.search.sampler != "cmaes":
        for text, excess in score.excess.items():
            trial.set_constraint(text, excess)
    study.tell(trial, _values(space, score))


def frozen_trial(space: Space, proposal: Proposal, score: Score) -> FrozenTrial:
    """A proposal as a trial of Optuna's: complete, failed or running; without parameters if the space cannot give it."""
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
        state=_STATES[score.state],
        values=_values(space, score) if is_complete else None,
        params=_params(proposal) if is_inside else {},
        distributions={k: distribution(space.search.space[k]) for k in proposal.changes} if is_inside else {},
        constraints=score.excess if is_complete else None,
        user_attrs=attributes,
    )


def _params(proposal: Proposal) -> dict[str, Any]:
    return {key: _label(value) for key, value in proposal.changes.items()}


def _values(space: Space, score: Score) -> list[float]:
    return [score.means[column] for column in space.objectives]


def _directions(space: Space) -> list[str]:
    return ["minimize" if direction == "min" else "maximize" for direction in space.objectives.values()]


def export(name: str, space: Space, scored: Scored, storage_url: str) -> int:
    """Copy a search into an Optuna storage, as a study called `name`. Returns the number of trials there.

    What has not changed since the last export is left alone; a study in which something has changed is written anew,
    since Optuna never changes a trial that has ended.

    Args:
        storage_url: such as sqlite:///searches.db; the tables are made where they are missing.
    Raises:
        InputError: no such storage, or a study of this name that was not exported from here.
    """
    wanted = [frozen_trial(space, *pair) for pair in scored]
    try:
        with quiet(), _storage(storage_url) as storage:
            _export(name, space, wanted, storage)
    except (SQLAlchemyError, OptunaError, ImportError, ValueError, OSError, RuntimeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        fix = f"cannot be used as an Optuna storage ({problem}); give for instance sqlite:///searches.db"
        raise InputError("--to", "storage", without_password(storage_url), fix) from None
    return len(wanted)


@contextmanager
def _storage(url: str) -> Iterator[RDBStorage]:
    storage = RDBStorage(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return url


def _export(name: str, space: Space, wanted: Sequence[FrozenTrial], storage: RDBStorage) -> None:
    about = {_MARK: name, "search": space.search.model_dump(mode="json", by_alias=True, exclude_none=True)}
    study = _exported_before(name, about, wanted, storage)
    if study is None:
        study = optuna.create_study(study_name=name, storage=storage, directions=_directions(space))
        for key, value in about.items():
            study.set_user_attr(key, value)
        study.set_metric_names(list(space.objectives))
    study.add_trials(wanted[len(study.get_trials(deepcopy=False)) :])


def _exported_before(
    name: str, about: Mapping[str, Any], wanted: Sequence[FrozenTrial], storage: RDBStorage
) -> optuna.Study | None:
    """The study of an earlier export if only trials must be added to it; else it is deleted, if there is one."""
    if name not in optuna.study.get_all_study_names(storage):
        return None
    study = optuna.load_study(study_name=name, storage=storage)
    if study.user_attrs.get(_MARK) != name:
        fix = "a study of this name that is not an export is there; export elsewhere, or rename the sweep"
        raise InputError("--to", "study", name, fix)
    there = [_content(trial) for trial in study.get_trials(deepcopy=False)]
    if study.user_attrs == about and there == [_content(trial) for trial in wanted[: len(there)]]:
        return study
    optuna.delete_study(study_name=name, storage=storage)
    return None


def _content(trial: FrozenTrial) -> Mapping[str, Any]:
    parts = ("state", "values", "params", "distributions", "constraints", "user_attrs")
    return {part: getattr(trial, part) for part in parts}

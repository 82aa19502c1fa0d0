"""Copy a search into an Optuna storage, for its dashboard."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from pgray.search.optuna_adapter import ScoredProposals, directions, frozen_trial, quiet
from pgray.search.proposals import Proposal, Score
from pgray.search.space import Space
from trainer.errors import InputError

_MARK = "pgray_sweep"  # user attribute of the studies that `export` writes


@dataclass(frozen=True)
class ExportedStudy:
    """`storage`: its URL, with the password hidden."""

    study: str
    storage: str
    num_trials: int


def export(name: str, space: Space, scored: ScoredProposals, storage_url: str) -> ExportedStudy:
    """Write a search into an Optuna storage, as a study called `name`.

    If only trials were added since the last export, they are appended; otherwise the study is written again, since Optuna
    never changes a finished trial.

    Args:
        storage_url: such as sqlite:///searches.db; missing tables are created.
    Raises:
        InputError: the storage cannot be used, or has a study of this name from elsewhere.
    """
    trials = [_exported(space, *pair) for pair in scored]
    try:
        with quiet(), ExitStack() as at_end:
            storage = RDBStorage(storage_url)
            at_end.callback(storage.engine.dispose)
            at_end.callback(storage.remove_session)
            _write_study(name, space, trials, storage)
    except (SQLAlchemyError, OptunaError, ImportError, ValueError, OSError, RuntimeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        fix = f"cannot be used as an Optuna storage ({problem}); give for instance sqlite:///searches.db"
        raise InputError("--to", "storage", _without_password(storage_url), fix) from None
    return ExportedStudy(name, _without_password(storage_url), len(trials))


def _exported(space: Space, proposal: Proposal, score: Score) -> FrozenTrial:
    """Return a proposal as a trial with its true times, and with its constraints also in the form of Optuna 4 and older, a
    list, since optuna-dashboard reads only that."""
    trial = frozen_trial(space, proposal, score)
    if trial.constraints:
        trial.system_attrs = trial.system_attrs | {"constraints": list(trial.constraints.values())}
    if proposal.began_at is not None:
        trial.datetime_start = datetime.fromtimestamp(proposal.began_at)  # Optuna's times are local and naive
    if proposal.ended_at is not None:
        trial.datetime_complete = datetime.fromtimestamp(proposal.ended_at)
        trial.datetime_start = min(trial.datetime_start or trial.datetime_complete, trial.datetime_complete)
    return trial


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return url


def _write_study(name: str, space: Space, trials: Sequence[FrozenTrial], storage: RDBStorage) -> None:
    attributes = {_MARK: name, "search": space.search.model_dump(mode="json", by_alias=True, exclude_none=True)}
    if name in optuna.study.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        if study.user_attrs.get(_MARK) != name:
            fix = "the storage has another study of this name; export to another storage, or rename the sweep"
            raise InputError("--to", "study", name, fix)
        stored = [_content(trial) for trial in study.get_trials(deepcopy=False)]
        if study.user_attrs == attributes and stored == [_content(trial) for trial in trials[: len(stored)]]:
            study.add_trials(trials[len(stored) :])
            return
        optuna.delete_study(study_name=name, storage=storage)
    study = optuna.create_study(study_name=name, storage=storage, directions=directions(space))
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    study.set_metric_names(list(space.objectives))
    study.add_trials(trials)


def _content(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.state, trial.values, trial.params, trial.distributions, trial.system_attrs, trial.user_attrs

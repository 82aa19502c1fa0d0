"""Makes the plan of a sweep: reads the sweep and the data, checks and identifies every trial. Writes and launches nothing.

`pgray/planning/decision.py` then compares the plan with a run folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pgray.data.check import DataReport, preflight
from pgray.execution.launchers.base import find_launchers
from pgray.planning.checked_data import CheckData, DataKey, data_hashes
from pgray.planning.config_warnings import config_warnings
from pgray.spec.expand import Arm, Expansion, Trial, arm_config, expand
from pgray.spec.expressions import Condition
from pgray.spec.paths import data_path
from pgray.spec.stopping import check_rules
from pgray.spec.sweep import Sweep
from pgray.store.outcomes import read_result
from trainer.config import Config
from trainer.errors import DataError, InputError
from trainer.model.shapes import check_patterns
from trainer.records.fingerprint import config_sha, train_fingerprint, trial_id
from trainer.records.layout import RunLayout
from trainer.records.ledger import read_ledger

if TYPE_CHECKING:
    from pgray.search.study import Study


@dataclass(frozen=True)
class PlannedTrial:
    arm: str
    seed: int
    trial_id: str
    train_fingerprint: str
    config_sha: str  # of its arm's configuration, equal for all seeds
    config: Config  # with absolute data paths: a job runs in another working folder
    changes: dict[str, Any] | None = None  # dotted overrides of an arm that a search proposed; else None


@dataclass(frozen=True)
class Plan:
    sweep: Sweep
    expansion: Expansion
    trials: tuple[PlannedTrial, ...]
    checked_data: dict[DataKey, DataReport]  # {} if planned without data
    config_warnings: tuple[str, ...]
    study: "Study | None" = None  # of a search: its proposals, past and future

    @property
    def data_warnings(self) -> list[str]:
        return list(dict.fromkeys(warning for report in self.checked_data.values() for warning in report.warnings))

    @property
    def warnings(self) -> list[str]:
        return [*self.config_warnings, *self.data_warnings]


def make_plan(
    sweep: Sweep,
    *,
    layout: RunLayout | None = None,
    reads_data: bool = True,
    check_data: CheckData | None = None,
) -> Plan:
    """Expand a sweep, check every config and the data, and identify every trial.

    Args:
        layout: the run folder, for the earlier proposals of a search; it need not exist.
        reads_data: False plans without data. Trial ids and fingerprints are placeholders then: they tell which trials
            share a training run, but match no ledger.
        check_data: default `preflight`, which reads samples of a large folder.
    Raises:
        InputError, DataError: the first problem found.
    """
    study = _study(sweep, layout)
    expansion = expand(sweep, {p.name: p.changes for p in study.proposals} if study else {})
    _check_launcher(sweep)
    for arm in expansion.arms:
        check_machine(sweep, arm)
    configs = {arm.name: arm.config for arm in expansion.arms}
    check_rules(sweep.file, configs, expansion.control, sweep.origin)
    checked: dict[DataKey, DataReport] = {}
    trials = tuple(
        _plan_trial(sweep, t, checked if reads_data else None, check_data or preflight) for t in expansion.trials
    )
    return Plan(sweep, expansion, trials, checked, (*config_warnings(expansion), *sweep.warnings), study)


def plan_proposal(plan: Plan, name: str, changes: dict[str, Any]) -> list[PlannedTrial]:
    """Return the trials of an arm that a search has just proposed, one per seed."""
    config = arm_config(plan.sweep, f"arm {name}", changes)
    seeds = (config.model_copy(update={"seed": seed}) for seed in plan.sweep.seeds)
    check = partial(preflight, reads_all=True)  # of a folder that no earlier arm uses
    return [_plan_trial(plan.sweep, Trial(name, c.seed, c, changes), plan.checked_data, check) for c in seeds]


def _study(sweep: Sweep, layout: RunLayout | None) -> "Study | None":
    if sweep.search is None:
        return None
    from pgray.search.proposals import read_proposals
    from pgray.search.study import Study  # takes a second to import

    def build(changes: Mapping[str, Any], where: str) -> Config:
        config = arm_config(sweep, where, changes)
        check_machine(sweep, Arm(where, dict(changes), config))
        return config

    entries = read_ledger(layout.ledger)[0] if layout else []
    proposals = read_proposals(entries, lambda name: read_result(layout.trial(name)) if layout else None)
    where = [Condition(text, sweep.origin, f"where.{i}") for i, text in enumerate(sweep.file.where)]
    return Study(sweep.name, sweep.search, build, 0, proposals, where, sweep.origin)


def _plan_trial(
    sweep: Sweep, trial: Trial, checked: dict[DataKey, DataReport] | None, check_data: CheckData
) -> PlannedTrial:
    data = trial.config.data
    paths = {"path": data.path} | ({"tokenizer": data.tokenizer} if data.tokenizer else {})
    absolute = {name: data_path(path, f"data.{name}", sweep) for name, path in paths.items()}
    config = trial.config.model_copy(update={"data": data.model_copy(update=absolute)})
    try:
        hashes = (
            (config.data.path, config.data.tokenizer) if checked is None else data_hashes(config, checked, check_data)
        )
    except DataError as error:
        key = "data.tokenizer" if str(error.path) == config.data.tokenizer else "data.path"
        raise DataError(f"{sweep.origin}: arm {trial.arm}: {key}: {error.path}", error.problem, error.fix) from None
    device = "cuda" if sweep.machine.gpus else "cpu"
    facts = (config, *hashes, sweep.machine.world_size, device)
    fingerprint = train_fingerprint(*facts)
    identity = trial_id(trial.arm, config, fingerprint)
    return PlannedTrial(trial.arm, trial.seed, identity, fingerprint, config_sha(*facts), config, trial.changes)


def _check_launcher(sweep: Sweep) -> None:
    name, launchers = sweep.machine.launcher, find_launchers()
    if name not in launchers:
        raise InputError(sweep.origin, "launcher", name, f"must be one of: {', '.join(launchers)}")
    if problem := launchers[name].problem(sweep.machine):
        raise InputError(sweep.origin, "launcher", name, problem)


def check_machine(sweep: Sweep, arm: Arm) -> None:
    """Raise InputError for an arm that cannot run on the machine of a job."""
    machine, train, where = sweep.machine, arm.config.train, f"{sweep.origin}: arm {arm.name}"
    check_patterns(arm.config, where)
    if train.device == "cuda" and machine.gpus == 0:
        raise InputError(where, "train.device", "cuda", "a job holds no GPU; set resources.gpus or train.device: auto")
    if train.device == "cpu" and machine.gpus:
        raise InputError(where, "train.device", "cpu", "a job would hold GPUs for nothing; set resources: {gpus: 0}")
    train.split_batch(machine.world_size, where)  # raises if the ranks cannot share a batch

"""Make the plan of a sweep, and decide what to do with each of its trials. Nothing is written or launched.

`make_plan` reads the sweep and the data: it checks and identifies every trial. `decide` compares a plan with the ledger and
the results of a run folder; it is called again once the run folder is locked.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pgray.data.check import DataReport, preflight
from pgray.execution.launchers.base import find_launchers
from pgray.planning.checked_data import CheckData, DataKey, data_hashes
from pgray.planning.config_warnings import config_warnings
from pgray.planning.damage import check_finished, check_weights
from pgray.spec.expand import Arm, Expansion, Trial, arm_config, expand
from pgray.spec.expressions import Condition
from pgray.spec.paths import data_path
from pgray.spec.sections import FailurePolicy
from pgray.spec.stopping import check_rules
from pgray.spec.sweep import Sweep
from pgray.store.ledger import failures_that_count
from pgray.store.outcomes import read_result
from trainer.config import Config
from trainer.errors import DataError, FailureKind, InputError
from trainer.model.shapes import check_patterns
from trainer.records.fingerprint import config_sha, train_fingerprint, trial_id
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry, last_entries, newest_trials, read_ledger
from trainer.records.states import TrialState
from trainer.records.text import count_of
from trainer.run.bundle import code_sha

if TYPE_CHECKING:
    from pgray.search.study import Study

Action = Literal["run", "finished", "recover", "leave"]
"""run: launch it. finished: nothing to do. recover: its result is on disk, but not in the ledger.
leave: it failed or was killed in a way that a rerun does not fix."""


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


@dataclass(frozen=True)
class Decision:
    """What to do with each trial of a plan.

    Args:
        actions: by trial id, in the plan's order.
        before: the last ledger entry of each trial that has one.
        superseded: the last entries of unfinished trials that the sweep no longer contains.
        outdated: trials whose arm the ledger lists later with another configuration, or without naming one.
        replaced: the last entries of finished trials that this run takes out of the table: their arm has another
            configuration now.
        codes: `code_sha` of the results on disk -> how many have it.
        damage: lines about damaged files, and what is done about them.
    """

    plan: Plan
    actions: dict[str, Action]
    before: dict[str, LedgerEntry]
    superseded: tuple[LedgerEntry, ...] = ()
    outdated: tuple[PlannedTrial, ...] = ()
    replaced: tuple[LedgerEntry, ...] = ()
    codes: Mapping[str | None, int] = field(default_factory=dict)
    damage: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Warn about damaged files, finished trials that no longer count, and other code than earlier trials had."""
        found = [*self.damage, *_replaced_warnings(self.replaced)]
        now = code_sha()
        others = {sha or "unknown": count for sha, count in self.codes.items() if sha != now}
        if not others or not self.with_action("run"):
            return found
        made = f"{sum(others.values())} of {sum(self.codes.values())} finished trials were made by other code"
        return [
            *found,
            f"{made} ({', '.join(others)}) than the current {now}; see the column code_sha, and code/ for sources",
        ]

    @property
    def has_ledger_changes(self) -> bool:
        """Whether the ledger must be updated: trials to run, found on disk, superseded or outdated."""
        return bool(self.superseded or self.outdated or {"run", "recover"}.intersection(self.actions.values()))

    def with_action(self, action: Action) -> list[PlannedTrial]:
        return [trial for trial in self.plan.trials if self.actions[trial.trial_id] == action]

    def jobs_to_run(self) -> list[list[PlannedTrial]]:
        """Return the trials to run, grouped by training run: first seeds before second ones, the control before other arms."""
        groups: dict[str, list[PlannedTrial]] = defaultdict(list)
        order = {seed: index for index, seed in enumerate(self.plan.sweep.seeds)}
        control = self.plan.expansion.control  # first, since stopping rules compare the other arms with it
        for trial in sorted(self.with_action("run"), key=lambda trial: (order[trial.seed], trial.arm != control)):
            groups[trial.train_fingerprint].append(trial)
        return list(groups.values())


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


def decide_without_data(plan: Plan) -> Decision:
    """Return the decision that runs everything, for a plan whose trial ids match no ledger."""
    return Decision(plan, {trial.trial_id: "run" for trial in plan.trials}, {})


def decide(plan: Plan, layout: RunLayout) -> Decision:
    """Compare a plan with a run folder, which need not exist yet."""
    entries, _ = read_ledger(layout.ledger)
    states, failures = last_entries(entries), failures_that_count(entries)
    newest = set(newest_trials(entry for entry in entries if entry.sweep == plan.sweep.name).values())
    asked = {t.arm: t.config_sha for t in plan.trials}
    last = {t.trial_id: states[t.trial_id] for t in plan.trials if t.trial_id in states}
    results = {t.trial_id: read_result(layout.trial(t.trial_id)) for t in plan.trials}
    codes = Counter(result.code_sha for result in results.values() if result)
    has_finished = {name for name, entry in last.items() if entry.state == TrialState.FINISHED}
    done = [t for t in plan.trials if results[t.trial_id] or t.trial_id in has_finished]
    damage = check_finished(done, results, layout)
    actions: dict[str, Action] = {}
    for t in plan.trials:
        is_done = results[t.trial_id] is not None and t.trial_id not in damage.repeated
        failed = failures.get(t.trial_id, Counter())
        actions[t.trial_id] = _action(last.get(t.trial_id), is_done, plan.sweep.file.failures, failed)
    outdated = [
        t
        for t in plan.trials
        if (before := states.get(t.trial_id)) and (t.trial_id not in newest or before.config_sha != t.config_sha)
    ]
    left_out_seeds = set(plan.sweep.file.seeds) - set(plan.sweep.seeds)  # by --seeds: still part of the sweep
    replaced = [
        entry
        for name, entry in states.items()
        if name in newest
        and name not in actions
        and entry.state == TrialState.FINISHED
        and asked.get(entry.arm, entry.config_sha) != entry.config_sha
    ]
    superseded = [
        entry
        for name, entry in states.items()
        if name not in actions
        and not (entry.seed in left_out_seeds and _is_same(entry, asked))
        and entry.state in (TrialState.QUEUED, TrialState.RUNNING, TrialState.LOST)
        and entry.sweep == plan.sweep.name
    ]
    decision = Decision(plan, actions, last, tuple(superseded), tuple(outdated), tuple(replaced), codes, damage.lines)
    weights = check_weights(decision.jobs_to_run(), layout)
    return dataclasses.replace(decision, damage=(*damage.lines, *weights))


def _replaced_warnings(replaced: Sequence[LedgerEntry]) -> list[str]:
    arms = list(dict.fromkeys(entry.arm for entry in replaced))
    if not arms:
        return []
    shown = ", ".join(arms[:5]) + (f" and {len(arms) - 5} more" if len(arms) > 5 else "")
    who, them = (f"arms {shown}", "the arms") if len(arms) > 1 else (f"arm {shown}", "the arm")
    fate = f"{count_of(len(replaced), 'finished trial')} will be superseded"
    return [f"{who}: {fate}: this run gives {them} another configuration"]


def _is_same(entry: LedgerEntry, asked: Mapping[str, str]) -> bool:
    """Whether an entry's arm still has the entry's configuration, as far as is known. `asked`: arm -> configuration."""
    return entry.config_sha is None or asked.get(entry.arm, entry.config_sha) == entry.config_sha


def _action(
    before: LedgerEntry | None, has_result: bool, policy: FailurePolicy, failed: Counter[FailureKind]
) -> Action:
    state = before.state if before else None
    if has_result:
        return "finished" if state == TrialState.FINISHED else "recover"
    if before is None or state in (TrialState.FINISHED, TrialState.QUEUED, TrialState.RUNNING, TrialState.INVALID):
        return "run"
    kind = before.failure_kind
    return "run" if kind is not None and policy.allows_retry(kind, failed[kind]) else "leave"


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

"""The plan: every trial checked and identified before anything is launched, and what the ledger and the disk lack of it.

Two steps, so that the second can be taken again under the run's lock: `make_plan` reads the sweep and the data and knows
no run folder; `decide` compares a plan with a run folder. Neither writes anything.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pgray.data.check import DataReport, preflight
from pgray.execution.launchers.base import find_launchers
from pgray.planning.config_warnings import plain_doubts
from pgray.spec.expand import Arm, Expansion, Trial, arm_config, expand
from pgray.spec.expressions import Condition
from pgray.spec.failure_policy import FailurePolicy
from pgray.spec.kill_rule import check_rules
from pgray.spec.sweep import Sweep
from pgray.store.outcomes import read_result
from pgray.store.retries import failures_that_count
from trainer.config import Config
from trainer.data.batch import split_batch
from trainer.errors import DataError, FailureKind, InputError
from trainer.model.shapes import check_patterns
from trainer.records.fingerprint import train_fingerprint, trial_id
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry, last_entries, newest_trials, read_ledger
from trainer.records.states import TrialState
from trainer.run.bundle import code_sha

if TYPE_CHECKING:
    from pgray.search.study import Study

Action = Literal["run", "finished", "recover", "leave"]
"""run: launch it; finished: nothing to do; recover: its result is on disk and only the ledger lacks it;
leave: failed or killed in a way that a rerun does not cure."""


Demand = tuple[str, str, int, int]
"""Data folder, tokenizer, vocabulary size, longest sequence: what is checked of the data, once."""


@dataclass(frozen=True)
class PlannedTrial:
    arm: str
    seed: int
    trial_id: str
    train_fingerprint: str
    config: Config  # with absolute data paths: a job does not run in the caller's folder
    changes: dict[str, Any] | None = None  # what a search's arm sets, dotted; None in a sweep whose file says it


@dataclass(frozen=True)
class Plan:
    sweep: Sweep
    expansion: Expansion
    trials: tuple[PlannedTrial, ...]
    checked_data: dict[Demand, DataReport]  # {} planned without data
    warnings: tuple[str, ...]
    study: "Study | None" = None  # of a search: what it has proposed, and will


@dataclass(frozen=True)
class Decision:
    """What to do with each trial of a plan, in its order; `before` is a trial's last ledger entry."""

    plan: Plan
    actions: dict[str, Action]
    before: dict[str, LedgerEntry]
    superseded: tuple[LedgerEntry, ...]  # unfinished trials that the sweep no longer asks for
    outdated: tuple[PlannedTrial, ...]  # trials whose arm and seed the ledger mentions later with another configuration
    codes: Mapping[str | None, int] = field(default_factory=dict)  # `code_sha` of the results on disk -> how many

    @property
    def warnings(self) -> list[str]:
        """What shows in the run folder and is probably not meant."""
        if not self.with_action("run") or not self.codes:
            return []
        now = code_sha()
        others = {sha or "unknown": count for sha, count in self.codes.items() if sha != now}
        if not others:
            return []
        made = f"{sum(others.values())} of {sum(self.codes.values())} finished trials were made by other code"
        return [
            f"{made} ({', '.join(others)}) than is to run now ({now}): rows say so in code_sha, code/ has the sources"
        ]

    @property
    def has_ledger_changes(self) -> bool:
        """Whether the ledger is to hear of something: to be run, found on disk, no longer or once more asked for."""
        is_changed = bool(self.superseded or self.outdated)
        return is_changed or any(action in ("run", "recover") for action in self.actions.values())

    def with_action(self, action: Action) -> list[PlannedTrial]:
        return [trial for trial in self.plan.trials if self.actions[trial.trial_id] == action]

    def jobs_to_run(self) -> list[list[PlannedTrial]]:
        """Return the trials to run, grouped by training run: first seeds before second ones, the control before other arms."""
        groups: dict[str, list[PlannedTrial]] = defaultdict(list)
        order = {seed: index for index, seed in enumerate(self.plan.sweep.seeds)}
        control = self.plan.expansion.control  # first, since others are judged against it while they run
        for trial in sorted(self.with_action("run"), key=lambda trial: (order[trial.seed], trial.arm != control)):
            groups[trial.train_fingerprint].append(trial)
        return list(groups.values())


def make_plan(sweep: Sweep, *, layout: RunLayout | None = None, reads_data: bool = True) -> Plan:
    """Expand a sweep, build and check every config, check the data, and identify every trial.

    Args:
        layout: of a run folder, for what a search has proposed before; it need not exist.
        reads_data: False plans without looking at the data. Identities are stand-ins then, which only tell which trials
            share a training run: such a plan is for looking at, and matches no ledger.
    Raises:
        InputError, DataError: the first problem found, in one line. Nothing has been launched or written.
    """
    study = _study(sweep, layout)
    expansion = expand(sweep, {p.name: p.changes for p in study.proposals} if study else {})
    _check_launcher(sweep)
    for arm in expansion.arms:
        check_machine(sweep, arm)
    configs = {arm.name: arm.config for arm in expansion.arms}
    check_rules(sweep.file.kill, configs, expansion.control, sweep.origin)
    checked: dict[Demand, DataReport] = {}
    trials = tuple(_identified(sweep, trial, checked if reads_data else None) for trial in expansion.trials)
    warnings = [*plain_doubts(expansion), *dict.fromkeys(w for report in checked.values() for w in report.warnings)]
    return Plan(sweep, expansion, trials, checked, tuple(warnings), study)


def plan_proposal(plan: Plan, name: str, changes: dict[str, Any]) -> list[PlannedTrial]:
    """The trials of an arm that a search has just proposed, one per seed."""
    config = arm_config(plan.sweep, f"arm {name}", changes)
    seeds = (config.model_copy(update={"seed": seed}) for seed in plan.sweep.seeds)
    return [_identified(plan.sweep, Trial(name, c.seed, c, changes), plan.checked_data) for c in seeds]


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


def _identified(sweep: Sweep, trial: Trial, checked: dict[Demand, DataReport] | None) -> PlannedTrial:
    config = _with_absolute_paths(trial.config)
    hashes = (config.data.path, config.data.tokenizer) if checked is None else _check_data(config, checked)
    device = "cuda" if sweep.machine.gpus else "cpu"
    fingerprint = train_fingerprint(config, *hashes, sweep.machine.world_size, device)
    identity = trial_id(trial.arm, config, fingerprint)
    return PlannedTrial(trial.arm, trial.seed, identity, fingerprint, config, trial.changes)


def _check_data(config: Config, checked: dict[Demand, DataReport]) -> tuple[str, str]:
    """Data and tokenizer hash of a config's data folder; each folder is read once."""
    longest = max(config.train.seq_len, config.eval.seq_len)
    data = (config.data.path, config.data.tokenizer, config.model.vocab_size, longest)
    if data not in checked:
        checked[data] = preflight(Path(data[0]), *data[1:])
    report = checked[data]
    if report.train_tokens <= config.train.batch_tokens:
        problem = f"{report.train_tokens} training tokens, fewer than one batch"
        raise DataError(config.data.path, problem, f"lower train.batch_tokens {config.train.batch_tokens}, or get more")
    assert report.data_sha is not None
    assert report.tokenizer_sha is not None
    return report.data_sha, report.tokenizer_sha


def decide(plan: Plan, layout: RunLayout) -> Decision:
    """Compare a plan with a run folder, which need not exist yet."""
    entries, _ = read_ledger(layout.ledger)
    states, failures = last_entries(entries), failures_that_count(entries)
    newest = newest_trials(entry for entry in entries if entry.sweep == plan.sweep.name)
    actions: dict[str, Action] = {}
    codes: Counter[str | None] = Counter()
    for t in plan.trials:
        result = read_result(layout.trial(t.trial_id))
        codes += Counter([result.code_sha] if result else [])
        actions[t.trial_id] = _action(
            states.get(t.trial_id), result is not None, t.trial_id, plan.sweep.failures, failures
        )
    outdated = [t for t in plan.trials if newest.get((t.arm, t.seed), t.trial_id) != t.trial_id]
    asked_for = {trial.trial_id for trial in plan.trials}
    set_aside = set(plan.sweep.file.seeds) - set(plan.sweep.seeds)  # by --seeds, for this once
    superseded = [
        entry
        for name, entry in states.items()
        if name not in asked_for
        and entry.seed not in set_aside
        and entry.state in (TrialState.QUEUED, TrialState.RUNNING, TrialState.LOST)
        and entry.sweep == plan.sweep.name
    ]
    before = {name: entry for name, entry in states.items() if name in asked_for}
    return Decision(plan, actions, before, tuple(superseded), tuple(outdated), codes)


def _action(
    entry: LedgerEntry | None,
    has_result: bool,
    name: str,
    policy: FailurePolicy,
    failures: Mapping[str, Counter[FailureKind]],
) -> Action:
    if has_result:
        return "finished" if entry is not None and entry.state == TrialState.FINISHED else "recover"
    if entry is None or entry.state in (TrialState.FINISHED, TrialState.QUEUED, TrialState.RUNNING, TrialState.INVALID):
        return "run"
    kind = entry.failure_kind
    if kind is not None and policy.allows_retry(kind, failures.get(name, Counter())[kind]):
        return "run"
    return "leave"


def _with_absolute_paths(config: Config) -> Config:
    paths = {"path": str(Path(config.data.path).absolute())}
    if config.data.tokenizer:
        paths["tokenizer"] = str(Path(config.data.tokenizer).absolute())
    return config.model_copy(update={"data": config.data.model_copy(update=paths)})


def _check_launcher(sweep: Sweep) -> None:
    name, launchers = sweep.machine.launcher, find_launchers()
    if name not in launchers:
        raise InputError(sweep.origin, "launcher", name, f"must be one of: {', '.join(launchers)}")
    if problem := launchers[name].problem(sweep.machine):
        raise InputError(sweep.origin, "launcher", name, problem)


def check_machine(sweep: Sweep, arm: Arm) -> None:
    """Refuse what cannot run on the machine that a job gets."""
    machine, train, place = sweep.machine, arm.config.train, f"{sweep.origin}: arm {arm.name}"
    check_patterns(arm.config, place)
    if train.device == "cuda" and machine.gpus == 0:
        raise InputError(place, "train.device", "cuda", "a job holds no GPU; set resources.gpus or train.device: auto")
    if train.device == "cpu" and machine.gpus:
        raise InputError(place, "train.device", "cpu", "a job would hold GPUs for nothing; set resources: {gpus: 0}")
    split_batch(train, machine.world_size, place)  # raises where the ranks cannot share a batch

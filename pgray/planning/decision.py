"""Decides what a run does with each trial of a plan: compares the plan with the ledger and the files of a run folder."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pgray.planning.damage import check_finished, check_weights
from pgray.planning.planner import Plan, PlannedTrial
from pgray.spec.sections import FailurePolicy
from pgray.store.ledger import failures_that_count
from pgray.store.outcomes import read_result
from trainer.errors import FailureKind
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry, last_entries, newest_trials, read_ledger
from trainer.records.states import TrialState
from trainer.records.text import count_of
from trainer.run.bundle import code_sha

Action = Literal["run", "finished", "recover", "leave"]
"""run: launch it. finished: nothing to do. recover: its result is on disk, but not in the ledger.
leave: it failed or was killed in a way that a rerun does not fix."""


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

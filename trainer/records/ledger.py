"""Entries of the ledger, and how to read them. `pgray` appends them; see `pgray/store/ledger.py`."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.errors import FailureKind
from trainer.records.record import Record
from trainer.records.states import TrialState


class LedgerEntry(Record):
    """One line of `ledger.jsonl`: a trial's new state. A trial's last line holds its present state.

    The order of first appearance is the order of the table's rows. `gpu_held_s` and `cost_usd` are the job's, divided
    equally among its trials so that sums are right.
    """

    at: float  # Unix time, seconds
    sweep: str
    arm: str
    seed: int
    trial_id: str
    train_fingerprint: str
    config_sha: str | None = None  # `fingerprint.config_sha`, equal for all seeds of a configuration; from version 3
    state: TrialState
    attempt: int = 0
    job_id: str | None = None
    failure_kind: FailureKind | None = None
    reason: str | None = None
    source: str | None = None  # where the numbers came from: `run`, `recovered`, or a file and line of a foreign log
    node: str | None = None
    gpu_held_s: float | None = None
    cost_usd: float | None = None
    changes: dict[str, Any] | None = None  # what the arm sets, dotted; on the first entry of a search's trial

    def moved_to(self, state: TrialState, **fields: Any) -> "LedgerEntry":
        """Return the next entry of the same trial and attempt, without the facts about its state before."""
        keep = {"sweep", "arm", "seed", "trial_id", "train_fingerprint", "config_sha", "attempt"}
        return LedgerEntry(at=time.time(), state=state, **self.model_dump(include=keep), **fields)


def read_ledger(path: Path) -> tuple[list[LedgerEntry], list[str]]:
    """Return all whole entries in file order, and a message for each omitted line. Both are empty without a file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], []
    entries, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entries.append(LedgerEntry.model_validate_json(line))
        except ValidationError:
            is_cut = number == len(lines)  # whole lines end with a newline
            what = "incomplete, probably cut off by a kill" if is_cut else "not a ledger entry"
            problems.append(f"{path}: line {number}: {what}; omitted")
    return entries, problems


def last_entries(entries: Iterable[LedgerEntry]) -> dict[str, LedgerEntry]:
    """Return trial id -> its last entry, in the order of the trials' first entries."""
    return {entry.trial_id: entry for entry in entries}  # a key keeps its first position


def newest_trials(entries: Iterable[LedgerEntry]) -> dict[tuple[str, int], str]:
    """Return (arm, seed) -> trial id, for the trials of each arm's newest configuration.

    A sweep that was edited and run again leaves trials of the old configuration, maybe of other seeds. An arm has one
    configuration, the one that the ledger mentions last; only trials of this one are current. An `invalid` entry does
    not count as a mention, since it says that a trial is no longer asked for. Entries of versions before 3 do not name
    their configuration: among these the last trial of each seed is current.
    """
    newest: dict[str, str | None] = {}  # arm -> configuration
    trials: dict[tuple[str, str | None], dict[int, str]] = {}  # arm, configuration -> seed -> trial id
    for entry in entries:
        if entry.state != TrialState.INVALID or entry.arm not in newest:
            newest[entry.arm] = entry.config_sha
        trials.setdefault((entry.arm, entry.config_sha), {})[entry.seed] = entry.trial_id
    return {(arm, seed): name for arm, sha in newest.items() for seed, name in trials[arm, sha].items()}


def job_costs(entries: Iterable[LedgerEntry]) -> dict[tuple[str, str | None], LedgerEntry]:
    """Return (trial, job) -> the entry with the trial's share of that job's cost: the last one with a measured time.

    A trial that is queued again repeats its old cost without a job id; that is not counted twice. Only a trial without
    any known job is counted without one.
    """
    costs: dict[tuple[str, str | None], LedgerEntry] = {}
    counted: set[str] = set()
    for entry in entries:
        if entry.gpu_held_s is not None and (entry.job_id or entry.trial_id not in counted):
            costs[entry.trial_id, entry.job_id] = entry
            counted.add(entry.trial_id)
    return costs

"""Notes on an arm: which trials its numbers leave out, and what could mislead a reader of its difference."""

import statistics
from collections import Counter
from collections.abc import Sequence

from results.analysis.comparability import circumstances, evaluation_columns, nats_per_unit
from results.analysis.statistics import Difference
from results.loading.hard_limits import broken_clocks, is_target_machine
from results.schema import Row
from trainer.limits import TRAIN_CAP_S
from trainer.records.results import LOSSES
from trainer.records.states import TrialState
from trainer.records.text import count_of

NOTED_INITIAL_SHARE = 0.01
"""Share of the initial weights in an average above which it is not the average that was asked for."""

_NOTED_STEP_CHANGE = 0.01  # relative difference in steps from which on a note says it


def trial_notes(rows: Sequence[Row], metric: str) -> list[str]:
    """Return notes on an arm's trials: limits, trials without a number, techniques that did not act, trainer's remarks."""
    finished = [row for row in rows if row["status"] == TrialState.FINISHED]
    over_cap = sum(row["is_within_cap"] is False for row in finished)
    slow = [f"seed {row['seed']} {' and '.join(clocks)}" for row in finished if (clocks := broken_clocks(row))]
    missing = sum(row[metric] is None for row in finished)
    others = Counter(row["status"] for row in rows if row["status"] != TrialState.FINISHED)
    return [
        *([f"{over_cap} of {len(finished)} seeds over the cap"] if over_cap else []),
        *([f"{len(slow)} of {len(finished)} seeds over a time limit: {slow[0]}"] if slow else []),
        *(f"{count} {state}" for state, count in others.items()),
        *([f"{missing} finished without {metric}"] if missing else []),
        *_overrun(finished),
        *average_notes(finished),
        *_qat_notes(finished),
        *(note for row in finished if row["notes"] for note in row["notes"].split("; ")),
    ]


def _overrun(finished: Sequence[Row]) -> list[str]:
    """Return a note if a run passed the 600 s by the one or two steps that are allowed."""
    over = [row for row in finished if is_target_machine(row) and (row["train_s"] or 0.0) > TRAIN_CAP_S]
    within = [row["train_s"] - TRAIN_CAP_S for row in over if not broken_clocks(row)]
    return [f"training clock over {TRAIN_CAP_S:.0f} s by up to {max(within):.2f} s, within two steps"] if within else []


def average_notes(finished: Sequence[Row]) -> list[str]:
    """Return notes on averages that never began or still hold initial weights."""
    share = max((row["initial_share"] or 0.0 for row in finished), default=0.0)
    never = any(row["never_began"] for row in finished)
    return [
        *(["the average never began: the last weights were exported"] if never else []),
        *([f"{share:.1%} of the average is the initial weights"] if share > NOTED_INITIAL_SHARE else []),
    ]


def _qat_notes(finished: Sequence[Row]) -> list[str]:
    """Return notes on QAT that was not live or covers a part of the weights only."""
    is_dead = any(row["qat_is_live"] is False for row in finished)
    covered = min((row["qat_coverage"] for row in finished if row["qat_coverage"] is not None), default=1.0)
    return [
        *(["QAT WAS NOT LIVE: it was enabled and changed nothing"] if is_dead else []),
        *([f"QAT covers {covered:.0%} of the quantized elements"] if covered < 1 else []),
    ]


def difference_notes(
    mine: Sequence[Row], reference: Sequence[Row], metric: str, test: Difference, assume_same: str | None
) -> list[str]:
    """Return notes that a reader of the difference between these measured rows needs."""
    if not mine:
        return []
    if not reference:
        return [f"the control has no {metric}"]
    both = [*mine, *reference]
    notes = [test.note or ""]
    alone = len(mine) - test.n
    if test.test == "paired" and alone:
        notes.append(f"{count_of(alone, 'seed')} without a partner in the control")
    if metric in LOSSES:
        unknown = [column for column in evaluation_columns(metric) if any(row[column] is None for row in both)]
        if unknown:
            why = f"assumed the same: {assume_same}" if assume_same else "comparable only if it was the same"
            notes.append(f"evaluation not recorded ({', '.join(unknown)}), {why}")
        unchecked = sum(row["is_within_cap"] is None for row in mine)
        notes.append(f"cap not checked on {unchecked} seeds: size unknown" if unchecked else "")
        if nats_per_unit(metric, both) is None:
            notes.append("no verdict: without token and byte counts, bpb cannot be converted into nats")
    return [*notes, *circumstances(mine, reference), *_step_note(mine, reference)]


def _step_note(mine: Sequence[Row], reference: Sequence[Row]) -> list[str]:
    steps, base = ([row["steps"] for row in rows if row["steps"] is not None] for rows in (mine, reference))
    if not steps or not any(base):
        return []
    ratio = statistics.fmean(steps) / statistics.fmean(base)
    if abs(ratio - 1) < _NOTED_STEP_CHANGE:
        return []
    share = f"{abs(ratio - 1):.1%} {'fewer' if ratio < 1 else 'more'} steps than the control"
    return [share if ratio < 2 else f"{ratio:,.1f}x the control's steps"]

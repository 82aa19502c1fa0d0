"""Decides which rows may be compared: groups trials by arm and refuses rows that were measured in different ways."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from results.analysis.statistics import nats_per_token
from results.loading.hard_limits import is_within_cap
from results.loading.runs import current
from results.schema import COLUMNS, NAMES, Row, records
from trainer.errors import InputError
from trainer.records.results import LOSSES, METRICS
from trainer.records.states import TrialState

_SAME_DENOMINATOR = 1e-3  # relative difference in bytes per token below which rounded logs count as one tokenizer
_SAME_EVALUATION = ("tokenizer_sha", "data_sha", "scored_tokens", "scored_bytes", "eval_seq_len")
_CIRCUMSTANCES = ("hardware", "world_size", "torch_version")  # may differ, but a note says so; so may the code


class NotComparableError(InputError, ValueError):
    """The rows were measured in different ways, so that their difference would not be the arm's effect."""


@dataclass(frozen=True)
class Arms:
    """The current rows of every arm, the control first, the others in the order of the table.

    reference: the control's rows that have the metric. problems: arm -> why it cannot be compared with them.
    """

    control: str
    rows: dict[str, list[Row]]
    reference: list[Row]
    problems: dict[str, str]


def group(
    trials: pd.DataFrame,
    control: str | None,
    metric: str,
    *,
    on_mismatch: Literal["raise", "mark"] = "raise",
    assume_same: str | None = None,
) -> Arms:
    """Group the rows by arm and fill in missing columns: None, but status "finished". Args as `ablation`.

    `is_within_cap` of the rows is computed from the bytes.

    Raises:
        InputError: no such metric or control, or rows without arm or seed.
        NotComparableError: a seed of an arm occurs twice; or an arm has a problem and `on_mismatch` is "raise".
    """
    by_arm: dict[str, list[Row]] = {}
    for row in _checked(trials, metric):
        by_arm.setdefault(row["arm"], []).append(row)
    control = trials.attrs.get("control") if control is None else control
    control = next(iter(by_arm), None) if control is None else control
    if control not in by_arm:
        fix = f"not among the arms: {', '.join(by_arm) or 'there are none'}"
        raise InputError("ablation", "control", control, fix)
    by_arm = {control: by_arm[control]} | by_arm
    reference = measured(by_arm[control], metric)
    problems: dict[str, str] = {}
    for arm, rows in by_arm.items():
        mixed = problems.get(control)  # a control with mixed evaluations cannot be compared with any arm
        problem = mixed or mismatch(measured(rows, metric), reference, metric, nulls_match=assume_same is not None)
        if problem and on_mismatch == "raise":
            fix = f"{problem}; leave out one of them or run it again"
            raise NotComparableError("trials", "comparison", "refused", fix)
        if problem:
            problems[arm] = problem
    return Arms(control, by_arm, reference, problems)


def measured(rows: Sequence[Row], metric: str) -> list[Row]:
    """Return the finished rows that have the metric."""
    return [row for row in rows if row["status"] == TrialState.FINISHED and row[metric] is not None]


def by_seed(rows: Sequence[Row], metric: str) -> dict[int, float]:
    return {row["seed"]: float(row[metric]) for row in rows}


def mismatch(rows: Sequence[Row], reference: Sequence[Row], metric: str, *, nulls_match: bool = False) -> str | None:
    """Return why these rows cannot be compared with the reference in this metric; None if they can."""
    if metric not in LOSSES or not reference:
        return None
    for column in evaluation_columns(metric):
        known = [row for row in (*reference, *rows) if row[column] is not None]
        first = known[0] if nulls_match and known else reference[0]
        for row in rows:
            if row[column] != first[column] and not (nulls_match and row[column] is None):
                return f"{_named(row)} has {column} {_shown(row[column])}, {_named(first)} has {_shown(first[column])}"
    return _other_denominator(rows, reference)


def _other_denominator(rows: Sequence[Row], reference: Sequence[Row]) -> str | None:
    """Return which rows encode another number of bytes per token, so that they have another tokenizer; None if none does."""
    known = [(row, ratio) for row in (*reference, *rows) if (ratio := _nats_per_bpb(row)) is not None]
    for row, ratio in known:
        first, expected = known[0]
        if abs(ratio / expected - 1) > _SAME_DENOMINATOR:
            here, there = (f"{value / math.log(2):.4f} bytes per token" for value in (ratio, expected))
            return f"{_named(row)} has {here} (loss / bpb), {_named(first)} has {there}: another tokenizer"
    return None


def _nats_per_bpb(row: Row) -> float | None:
    """Return the nats per token of 1 bpb, from scored bytes and tokens, else from loss and bpb of the same score."""
    if row["scored_bytes"] is not None and row["scored_tokens"]:
        return nats_per_token(1.0, row["scored_bytes"], row["scored_tokens"])
    if row["bytes_per_token"] is not None:
        return float(row["bytes_per_token"]) * math.log(2)
    if row["val_loss_nats"] is not None and row["post_quant_bpb"]:
        return float(row["val_loss_nats"] / row["post_quant_bpb"])
    return None


def circumstances(mine: Sequence[Row], reference: Sequence[Row]) -> list[str]:
    """Return notes on differences from the control outside the config: hardware, ranks, torch, code."""
    notes = []
    has_code_sha = all(row["code_sha"] is not None for row in (*mine, *reference))  # a commit need not change the code
    for column in (*_CIRCUMSTANCES, "code_sha" if has_code_sha else "git_sha"):
        here, there = (_values_by_seed(rows, column) for rows in (mine, reference))
        values = [sorted(set().union(*found.values())) for found in (here, there)]
        differing = sorted(seed for seed in here.keys() & there.keys() if here[seed] != there[seed])
        if not here or not there:
            continue
        if values[0] != values[1]:
            notes.append(f"{column} {'/'.join(values[0])}, control {'/'.join(values[1])}")
        elif differing:
            notes.append(f"{column} differs from the control's on seed {', '.join(map(str, differing))}")
        elif not here.keys() & there.keys() and (shares := _shares(here)) != _shares(there):
            notes.append(f"{column} mixed in other shares than in the control: {shares}, control {_shares(there)}")
    return notes


def _values_by_seed(rows: Sequence[Row], column: str) -> dict[int, set[str]]:
    """Return seed -> the known values of a column on it: more than one if the rows are of several arms."""
    found: dict[int, set[str]] = {}
    for row in rows:
        if row[column] is not None:
            found.setdefault(row["seed"], set()).add(str(row[column]))
    return found


def _shares(values: Mapping[int, set[str]]) -> str:
    """Return each value with the share of seeds that have it."""
    counts = sorted(Counter(value for own in values.values() for value in own).items())
    return ", ".join(f"{value} {count / len(values):.0%}" for value, count in counts)


def nats_per_unit(metric: str, rows: Sequence[Row]) -> float | None:
    """Return the nats per token of a difference of 1 in the metric, in the evaluation of these comparable rows.

    Computed from scored bytes and tokens; for rows without them (imported logs) from the loss and bpb of one score. None
    if the metric is not a loss, or no row has either.
    """
    if metric == "val_loss_nats":
        return 1.0
    if metric not in LOSSES:
        return None
    by_precision = sorted(rows, key=lambda row: row["scored_bytes"] is None)
    return next((ratio for row in by_precision if (ratio := _nats_per_bpb(row)) is not None), None)


def evaluation_columns(metric: str) -> tuple[str, ...]:
    """Return the columns that must agree before two values of a loss can be compared."""
    return (*_SAME_EVALUATION, *METRICS[metric].evaluated_with)


def _named(row: Row) -> str:
    return f"{row['arm']} seed {row['seed']}"


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _checked(trials: pd.DataFrame, metric: str) -> list[Row]:
    if metric not in trials or not pd.api.types.is_numeric_dtype(trials[metric]):
        numeric = ", ".join(c.name for c in COLUMNS if c.dtype in ("Int64", "Float64"))
        raise InputError("ablation", "metric", metric, f"not a numeric column of these trials; use one of {numeric}")
    for name in ("arm", "seed"):
        if name not in trials:
            raise InputError("ablation", "trials", name, "column missing; give rows as from results.load")
    absent: Row = dict.fromkeys(NAMES) | {"status": TrialState.FINISHED}
    rows = [absent | row for row in records(current(trials))]
    for row in rows:
        row["is_within_cap"] = is_within_cap(row)
    seen: dict[tuple[str, int], Row] = {}
    for row in rows:
        other = seen.setdefault((row["arm"], row["seed"]), row)
        if other is not row:
            sweeps = " and ".join(dict.fromkeys(_shown(r["sweep"]) for r in (other, row)))
            problem = f"occurs twice (sweeps: {sweeps}); compare one sweep at a time"
            raise NotComparableError("trials", "arm", _named(row), problem)
    return rows

"""Splits an arm's difference from the control into float quality, quantization and fewer steps: `decompose`.

Two identities hold for every trial, so the terms add up to the difference exactly, whatever the numbers:

    sliding_bpb = float_bpb + quant_gap + (sliding_bpb - post_quant_bpb)
    float_bpb   = raw_bpb + (float_bpb - raw_bpb)

The raw weights' part is split at the step s at which the shorter of two runs ended: into the difference of the two
validation curves at s, and the longer run's gain after s.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd

from results.analysis.comparability import by_seed, circumstances, group, measured
from results.analysis.statistics import difference, paired_seeds
from results.loading.curves import curves as read_curves
from results.schema import Dtype, Row, records, typed_frame

METRICS = ("post_quant_bpb", "sliding_bpb")  # the scores that the identities above decompose
_LR_ALIKE = 0.01  # learning-rate multipliers that differ by less count as equal
_WIDE = 0.05  # share of s: a straight line between validations further apart than this is noted
_DTYPES: dict[str, Dtype] = {
    "arm": "string", "metric": "string", "n_pairs": "Int64", "delta": "Float64", "float": "Float64",
    "quant_gap": "Float64", "sliding": "Float64", "equal_steps": "Float64", "fewer_steps": "Float64",
    "averaging": "Float64", "steps": "Float64", "control_steps": "Float64", "step_ms": "Float64",
    "control_step_ms": "Float64", "reason": "string",
}  # fmt: skip
_MEANS = ("steps", "step_ms")
_Curve = list[tuple[int, float | None, float | None]]  # step, val_bpb, lr_scale


class _NoSplitError(Exception):
    """A difference of raw weights cannot be split into quality and steps."""


def decompose(
    trials: pd.DataFrame,
    control: str | None = None,
    *,
    metrics: Sequence[str] = METRICS,
    curves: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return every arm's difference from the control as a sum of parts, over the seeds of `results.ablation`.

    Args:
        trials: rows as from `results.load`.
        control: the arm to compare with. None: the sweep's own (`trials.attrs`), else the first arm.
        metrics: post_quant_bpb, sliding_bpb or both; a metric that no trial has is left out.
        curves: as from `results.curves`. None: read from the run folders of `trials.attrs` if needed.
    Returns:
        A row for each arm but the control and each metric, in bits per byte, arm minus control:
        delta = float + quant_gap + sliding, where `sliding` is the effect of the sliding window's context (null for
        post_quant_bpb); float = equal_steps + fewer_steps + averaging, of which equal_steps is the raw weights' quality
        at the last step that both runs reached, fewer_steps the throughput tax: the longer run's gain after it
        (0 for equal steps; below zero if the arm is faster), averaging the effect of the average. steps and
        step_ms: means of the arm's and the control's trials. reason: why a part is null, or what limits it.
    Raises:
        InputError: no such control or metric.

    With a wallclock schedule the longer run has not cooled down at that step: fewer_steps is then too large and
    equal_steps too small by the gain of cooling down. `reason` gives both learning rates.
    """

    @cache
    def by_trial() -> dict[str, _Curve]:
        table = read_curves(trials.attrs["runs"]) if curves is None and trials.attrs.get("runs") else curves
        found: dict[str, _Curve] = {}
        for point in records(table) if table is not None else []:
            found.setdefault(point["trial_id"], []).append((point["step"], point["val_bpb"], point["lr_scale"]))
        return found

    lines: list[Row] = []
    for metric in metrics:
        if metric not in trials or trials[metric].isna().all():
            continue
        arms = group(trials, control, metric, on_mismatch="mark")
        for arm, rows in arms.rows.items():
            if arm == arms.control:
                continue
            line: Row = {"arm": arm, "metric": metric}
            problem, mine = arms.problems.get(arm), measured(rows, metric)
            if problem is None:
                parts, problem = _parts(mine, arms.reference, metric, by_trial)
                line |= parts
            over_cap = sum(row["is_within_cap"] is False for row in mine)
            notes = [problem, f"{over_cap} of {len(mine)} seeds over the cap" if over_cap else None]
            line["reason"] = "; ".join(filter(None, [*notes, *circumstances(mine, arms.reference)])) or None
            lines.append(line)
    return typed_frame(lines, _DTYPES)


def _parts(
    mine: list[Row], theirs: list[Row], metric: str, curves: Callable[[], dict[str, _Curve]]
) -> tuple[Row, str | None]:
    """Return the columns of one comparison, and why some are null or limited."""
    values = by_seed(mine, metric), by_seed(theirs, metric)
    seeds = paired_seeds(*values)
    if seeds:
        mine, theirs = ([{row["seed"]: row for row in rows}[seed] for seed in seeds] for rows in (mine, theirs))
    test = difference(*values)
    line: Row = {"n_pairs": test.n, "delta": test.delta}
    line |= {name: _mean(mine, name) for name in _MEANS} | {f"control_{name}": _mean(theirs, name) for name in _MEANS}
    if test.delta is None:
        return line, "one side has no finished trial with this metric"
    float_delta, post_quant = _difference(mine, theirs, "float_bpb"), _difference(mine, theirs, "post_quant_bpb")
    if float_delta is None or post_quant is None:
        return line, "float_bpb and post_quant_bpb were not measured on every seed"
    line |= {"float": float_delta, "quant_gap": post_quant - float_delta}
    if metric == "sliding_bpb":
        line["sliding"] = test.delta - post_quant
    if not seeds:
        return line, "seeds do not pair: float is not split"
    try:
        splits = [_split(a, c, curves) for a, c in zip(mine, theirs, strict=True)]
    except _NoSplitError as error:
        return line, f"{error}: float is not split"
    line |= {name: statistics.fmean(split[name] for split, _ in splits) for name in splits[0][0]}
    return line, "; ".join(dict.fromkeys(note for _, notes in splits for note in notes)) or None


def _split(arm: Row, control: Row, curves: Callable[[], dict[str, _Curve]]) -> tuple[dict[str, float], list[str]]:
    """Return the columns of one seed's difference in float_bpb, in three parts, with notes."""
    for row in (arm, control):
        if row["raw_bpb"] is None or row["steps"] is None:
            raise _NoSplitError(f"{row['arm']} seed {row['seed']} has no raw_bpb or steps")
    raw = arm["raw_bpb"] - control["raw_bpb"]
    averaging = (arm["float_bpb"] - arm["raw_bpb"]) - (control["float_bpb"] - control["raw_bpb"])
    if arm["steps"] == control["steps"]:
        return {"equal_steps": raw, "fewer_steps": 0.0, "averaging": averaging}, []
    shorter, longer = (arm, control) if arm["steps"] < control["steps"] else (control, arm)
    step = shorter["steps"]
    value, notes = _value_at(step, longer, curves().get(longer["trial_id"], []))
    gained_after = value - longer["raw_bpb"]
    fewer_steps = gained_after if shorter is arm else -gained_after
    rates = [_lr_at(step, curves().get(row["trial_id"], [])) for row in (arm, control)]
    if rates[0] is not None and rates[1] is not None and abs(rates[0] - rates[1]) >= _LR_ALIKE:
        notes.append(f"equal steps, unequal schedules: LR multiplier {rates[0]:.2f} against {rates[1]:.2f} at {step:,}")
    return {"equal_steps": raw - fewer_steps, "fewer_steps": fewer_steps, "averaging": averaging}, notes


def _value_at(step: int, row: Row, curve: _Curve) -> tuple[float, list[str]]:
    """Return the raw weights' bpb at a step before the run's last, interpolated between validations, with notes."""
    known = {at: bpb for at, bpb, _ in curve if bpb is not None} | {row["steps"]: row["raw_bpb"]}
    steps = sorted(known)
    trial = f"{row['arm']} seed {row['seed']}"
    if len(steps) < 2:
        raise _NoSplitError(f"{trial} has no validation curve (train.val_every)")
    if step < steps[0]:
        raise _NoSplitError(f"{trial} was first validated at step {steps[0]:,}, after {step:,}")
    after = next(at for at in steps if at >= step)
    before = after if after == step else max(at for at in steps if at < step)
    is_wide = after - before > _WIDE * step
    value = float(np.interp(step, steps, [known[at] for at in steps]))
    return value, [f"{trial}: interpolated between steps {before:,} and {after:,}"] if is_wide else []


def _lr_at(step: int, curve: _Curve) -> float | None:
    points = [(at, lr) for at, _, lr in curve if lr is not None]
    return float(np.interp(step, [at for at, _ in points], [lr for _, lr in points])) if points else None


def _mean(rows: list[Row], name: str) -> float | None:
    values = [float(row[name]) for row in rows if row[name] is not None]
    return statistics.fmean(values) if values else None


def _difference(mine: list[Row], theirs: list[Row], name: str) -> float | None:
    """Return the difference of the two means; None if a row lacks the value: all parts must be of the same trials."""
    if any(row[name] is None for row in (*mine, *theirs)):
        return None
    return statistics.fmean(row[name] for row in mine) - statistics.fmean(row[name] for row in theirs)

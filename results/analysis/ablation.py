"""Compares every arm with the control over seeds: `ablation`.

Only finished trials of an arm's current configuration enter a mean; the others are counted: failed, pending, over the cap,
finished without this metric. A seed over the cap stays in the mean, since the control of a bit-width sweep is often too
big, but its arm is INFEASIBLE.
"""

import statistics
from collections import Counter
from typing import Any, Literal

import pandas as pd

from results.analysis.comparability import by_seed, circumstances, evaluation_columns, group, measured, nats_per_unit
from results.analysis.statistics import Difference, difference, holm, p_margin, seeds_required, verdict
from results.schema import Dtype, Row, typed_frame
from trainer.limits import WIN_MIN_SEEDS
from trainer.records.results import LOSSES
from trainer.records.states import TrialState

_FAILED = tuple(state for state in TrialState if state.is_failed)
_PENDING = tuple(state for state in TrialState if state.is_open)
_DTYPES: dict[str, Dtype] = {
    "arm": "string", "n": "Int64", "mean": "Float64", "std": "Float64", "delta": "Float64", "ci_low": "Float64",
    "ci_high": "Float64", "p": "Float64", "p_holm": "Float64", "verdict": "string", "test": "string",
    "n_pairs": "Int64", "delta_nats": "Float64", "p_margin": "Float64", "seeds_needed": "Int64",
    "n_over_cap": "Int64", "n_failed": "Int64", "n_pending": "Int64", "n_missing": "Int64", "reason": "string",
}  # fmt: skip


def ablation(
    trials: pd.DataFrame,
    control: str | None = None,
    metric: str = "sliding_bpb",
    *,
    on_mismatch: Literal["raise", "mark"] = "raise",
    assume_same: str | None = None,
) -> pd.DataFrame:
    """Compare every arm with the control, paired by seed; by Welch's test if fewer than two seeds are shared.

    Args:
        trials: rows as from `results.load`. Needs `arm`, `seed` and the metric; missing columns count as unknown.
        control: the arm to compare with. None: the sweep's own (`trials.attrs`), else the first arm.
        metric: any numeric column, lower is better. Only bpb metrics and `val_loss_nats` have a verdict.
        on_mismatch: what to do with an arm whose evaluation differs from the control's: raise, or give its row no
            delta, the verdict NOT COMPARABLE and the reason.
        assume_same: reason to treat an evaluation that was not recorded (null, as in imported rows) like the others';
            shown in the reason of each arm that it concerns. None: null is comparable with null only.
    Returns:
        One row per arm, the control first: arm, n, mean, std over all its finished seeds; delta (arm - control),
        95 % interval and p of the `test` over n_pairs pairs of seeds (Welch: the seeds of the smaller side); p_holm
        (Holm over the arms); verdict (on p_holm); delta_nats per token; p_margin (one-sided, uncorrected: that the
        improvement is below 0.005 nats); seeds_needed (further seeds for a decision, if difference and spread are as
        observed: see `seeds_required`; 0 with NOISE: no effect of that size; without a spread, the seeds that the rule
        still lacks); counts of trials that are not in the mean or over the cap; reason. std is the sample standard
        deviation. Null = unknown.
    Raises:
        NotComparableError: rows were scored on other tokens, bytes, data, tokenizer or evaluation settings, or a seed of
            an arm occurs twice.
        InputError: no such control, no such metric.
    """
    arms = group(trials, control, metric, on_mismatch=on_mismatch, assume_same=assume_same)
    reference = arms.reference
    lines, found = [], []
    for arm, rows in arms.rows.items():
        mine, problem = measured(rows, metric), arms.problems.get(arm)
        line, notes = _counted(arm, rows, metric)
        line["verdict"] = "CONTROL" if arm == arms.control else "NOT COMPARABLE" if problem else None
        test = Difference(0, None) if line["verdict"] else difference(by_seed(mine, metric), by_seed(reference, metric))
        if line["verdict"] is None:
            notes += _comparison_notes(mine, reference, metric, test, assume_same)
        line["reason"] = "; ".join(filter(None, [*notes, problem])) or None
        lines.append(line)
        found.append(test)
    p_holm = holm([test.p for test in found])
    num_tests = sum(p is not None for p in p_holm)
    for line, test, corrected in zip(lines, found, p_holm, strict=True):
        if line["verdict"] is None:
            scale = nats_per_unit(metric, [*reference, *measured(arms.rows[line["arm"]], metric)])
            line |= _judged(test, corrected, num_tests, scale, line["n_over_cap"] == 0, metric)
    return typed_frame(lines, _DTYPES)


def _counted(arm: str, rows: list[Row], metric: str) -> tuple[dict[str, Any], list[str]]:
    """Return an arm's own numbers, and notes on the trials that are not in them."""
    finished = [row for row in rows if row["status"] == TrialState.FINISHED]
    values = list(by_seed(measured(rows, metric), metric).values())
    over_cap = sum(row["is_within_cap"] is False for row in finished)
    missing = len(finished) - len(values)
    line = {
        "arm": arm,
        "n": len(values),
        "mean": statistics.fmean(values) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "n_over_cap": over_cap,
        "n_failed": sum(row["status"] in _FAILED for row in rows),
        "n_pending": sum(row["status"] in _PENDING for row in rows),
        "n_missing": missing,
    }
    others = Counter(row["status"] for row in rows if row["status"] != TrialState.FINISHED)
    return line, [
        f"{over_cap} of {len(finished)} seeds over the cap" if over_cap else "",
        *(f"{count} {status}" for status, count in others.items()),
        f"{missing} finished without {metric}" if missing else "",
    ]


def _comparison_notes(
    mine: list[Row], reference: list[Row], metric: str, test: Difference, assume_same: str | None
) -> list[str]:
    """Return notes that a reader of this difference needs."""
    if not mine or not reference:
        return []
    both = [*mine, *reference]
    notes = [test.note or ""]
    alone = len(mine) - test.n
    if test.test == "paired" and alone:
        notes.append(f"{alone} seeds without a partner in the control")
    if metric in LOSSES:
        unknown = [column for column in evaluation_columns(metric) if any(row[column] is None for row in both)]
        if unknown:
            why = f"assumed the same: {assume_same}" if assume_same else "comparable only if it was the same"
            notes.append(f"evaluation not recorded ({', '.join(unknown)}), {why}")
        unchecked = sum(row["is_within_cap"] is None for row in mine)
        notes.append(f"cap not checked on {unchecked} seeds: size unknown" if unchecked else "")
        if nats_per_unit(metric, both) is None:
            notes.append("no verdict: without token and byte counts, bpb cannot be converted into nats")
    return notes + circumstances(mine, reference)


def _judged(
    test: Difference, p_holm: float | None, num_tests: int, scale: float | None, is_feasible: bool, metric: str
) -> dict[str, Any]:
    """Return the columns of a comparison. scale: nats per token for a difference of 1 in the metric."""
    line: dict[str, Any] = {name: getattr(test, name) for name in ("test", "delta", "ci_low", "ci_high", "p")}
    line |= {"n_pairs": test.n, "p_holm": p_holm}
    if metric not in LOSSES:
        return line
    if test.delta is not None and scale is not None:
        line["delta_nats"] = test.delta * scale
        if test.std_error is not None and test.df is not None:
            line["p_margin"] = p_margin(test.delta * scale, test.std_error * scale, test.df)
    line["verdict"] = verdict(line.get("delta_nats"), p_holm, test.n, is_feasible)
    required: int | None = None
    if line["verdict"] in ("WIN", "LOSS"):
        required = 0
    elif line["verdict"] == "INFEASIBLE":
        pass  # more seeds do not make it smaller
    elif test.std is None:
        required = WIN_MIN_SEEDS if test.n < WIN_MIN_SEEDS else None
    elif test.delta is not None and scale is not None:
        required = seeds_required(test.std * scale, abs(test.delta * scale), num_tests)
    line["seeds_needed"] = None if required is None else max(0, required - test.n)
    return line

"""Compares every arm with the control over seeds: `ablation`.

Only finished trials of an arm's current configuration enter a mean; the others are counted: failed, pending, finished
without this metric. A seed over the cap or a time limit stays in the mean, since the control of a bit-width sweep is often
too big, but its arm is INFEASIBLE.
"""

import statistics
from collections import Counter
from typing import Any, Literal

import pandas as pd

from results.analysis.comparability import by_seed, group, measured, nats_per_unit
from results.analysis.headline import headline_of
from results.analysis.notes import difference_notes, trial_notes
from results.analysis.statistics import Difference, difference, holm, p_margin, seeds_required
from results.analysis.verdicts import OnFailedSeeds, Trials, Verdict, by_numbers, with_lost_seeds, without_result
from results.loading.hard_limits import broken_clocks
from results.schema import Dtype, Row, typed_frame
from trainer.limits import PRACTICE_P_VALUE, WIN_MIN_SEEDS
from trainer.records.results import LOSSES
from trainer.records.states import TrialState
from trainer.records.text import count_of

_FAILED = tuple(state for state in TrialState if state.is_failed)
_PENDING = tuple(state for state in TrialState if state.is_open)
_DTYPES: dict[str, Dtype] = {
    "arm": "string", "n": "Int64", "mean": "Float64", "std": "Float64", "delta": "Float64", "ci_low": "Float64",
    "ci_high": "Float64", "p": "Float64", "p_holm": "Float64", "verdict": "string", "test": "string",
    "n_pairs": "Int64", "delta_nats": "Float64", "p_margin": "Float64", "seeds_needed": "Int64",
    "n_over_cap": "Int64", "n_failed": "Int64", "n_pending": "Int64", "n_missing": "Int64", "reason": "string",
    "p_permutation": "Float64", "n_over_time": "Int64", "metric": "string",
}  # fmt: skip
_PRACTICE: dict[str, Dtype] = {"p_one_sided": "Float64", "is_better_in_practice": "boolean"}
_OF_TEST = ("test", "delta", "ci_low", "ci_high", "p", "p_permutation")


def ablation(
    trials: pd.DataFrame,
    control: str | None = None,
    metric: str | None = None,
    *,
    on_mismatch: Literal["raise", "mark"] = "raise",
    assume_same: str | None = None,
    on_failed_seeds: OnFailedSeeds | None = None,
    practice: bool = False,
) -> pd.DataFrame:
    """Compare every arm with the control, paired by seed; by Welch's test if fewer than two seeds are shared.

    Args:
        trials: rows as from `results.load`. Needs `arm`, `seed` and the metric; missing columns count as unknown.
        control: the arm to compare with. None: the sweep's own (`trials.attrs`), else the first arm.
        metric: any numeric column, lower is better. Only bpb metrics and `val_loss_nats` have a verdict. None: as in the
            table, sliding_bpb if every finished trial has it, else post_quant_bpb.
        on_mismatch: what to do with an arm whose evaluation differs from the control's: raise, or give its row no
            delta, the verdict NOT COMPARABLE and the reason.
        assume_same: reason to treat an evaluation that was not recorded (null, as in imported rows) like the others';
            shown in the reason of each arm that it concerns. None: null is comparable with null only.
        on_failed_seeds: "incomplete": an arm with failed or killed seeds has no WIN; "ignore": judge by the seeds that
            are left. None: as the sweep says (`trials.attrs`), else "incomplete".
        practice: add p_one_sided (uncorrected, that the arm is no better than the control) and is_better_in_practice:
            p_one_sided < 0.25, at which records were accepted in practice. Give the previous record as the control.
    Returns:
        One row per arm, the control first: arm, n, mean, std over all its finished seeds; delta (arm - control),
        95 % interval and p of the `test` over n_pairs pairs of seeds (Welch: the seeds of the smaller side); p_holm
        (Holm over the arms); verdict (on p_holm: `results.analysis.verdicts.MEANINGS`); delta_nats per token; p_margin
        (one-sided, uncorrected: that the improvement is below 0.005 nats); seeds_needed (further seeds for a decision, if
        difference and spread are as observed: see `seeds_required`; 0 with NOISE: no effect of that size; without a
        spread, the seeds that the rule still lacks); counts of trials that are not in the mean, over the cap or over a
        time limit; reason; p_permutation (two-sided, uncorrected, exact by flipping signs; from 8 pairs on); metric. std
        is the sample standard deviation. Null = unknown.
    Raises:
        NotComparableError: rows were scored on other tokens, bytes, data, tokenizer or evaluation settings, or a seed of
            an arm occurs twice.
        InputError: no such control, no such metric.
    """
    metric = metric or headline_of(trials)
    on_failed_seeds = on_failed_seeds or trials.attrs.get("on_failed_seeds", "incomplete")
    arms = group(trials, control, metric, on_mismatch=on_mismatch, assume_same=assume_same)
    reference = arms.reference
    ended = {arm: _ended(rows) for arm, rows in arms.rows.items()}
    lines, found = [], []
    for arm, rows in arms.rows.items():
        mine, problem = measured(rows, metric), arms.problems.get(arm)
        line, notes = _counted(arm, rows, metric), trial_notes(rows, metric)
        line["verdict"] = (
            "CONTROL" if arm == arms.control else "NOT COMPARABLE" if problem else without_result(ended[arm])
        )
        test = Difference(0, None) if line["verdict"] else difference(by_seed(mine, metric), by_seed(reference, metric))
        if line["verdict"] is None:
            notes += difference_notes(mine, reference, metric, test, assume_same)
        line["reason"] = "; ".join(dict.fromkeys(filter(None, [*notes, problem]))) or None
        lines.append(line)
        found.append(test)
    p_holm = holm([test.p for test in found])
    num_tests = sum(p is not None for p in p_holm)
    for line, test, corrected in zip(lines, found, p_holm, strict=True):
        if line["verdict"] is None:
            scale = nats_per_unit(metric, [*reference, *measured(arms.rows[line["arm"]], metric)])
            line |= _compared(test, corrected, scale)
            if metric in LOSSES:
                is_feasible = not (line["n_over_cap"] or line["n_over_time"])
                found_verdict = _verdict(line, is_feasible)
                line["verdict"] = with_lost_seeds(
                    found_verdict, ended[line["arm"]], ended[arms.control], on_failed_seeds
                )
                if found_verdict == "LOSS" and line["verdict"] == "INCOMPLETE":
                    lost = count_of(ended[arms.control].lost, "seed")
                    note = f"the control lost {lost}, so the rest may flatter it"
                    line["reason"] = "; ".join(filter(None, [line["reason"], note]))
                line["seeds_needed"] = _seeds_needed(test, found_verdict, num_tests, scale)
            if practice and test.p_one_sided is not None:
                line["p_one_sided"] = test.p_one_sided
                line["is_better_in_practice"] = test.p_one_sided < PRACTICE_P_VALUE
    return typed_frame(lines, _DTYPES | (_PRACTICE if practice else {}))


def _counted(arm: str, rows: list[Row], metric: str) -> dict[str, Any]:
    """Return an arm's own numbers."""
    finished = [row for row in rows if row["status"] == TrialState.FINISHED]
    values = list(by_seed(measured(rows, metric), metric).values())
    return {
        "arm": arm,
        "metric": metric,
        "n": len(values),
        "mean": statistics.fmean(values) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "n_over_cap": sum(row["is_within_cap"] is False for row in finished),
        "n_over_time": sum(bool(broken_clocks(row)) for row in finished),
        "n_failed": sum(row["status"] in _FAILED for row in rows),
        "n_pending": sum(row["status"] in _PENDING for row in rows),
        "n_missing": len(finished) - len(values),
    }


def _ended(rows: list[Row]) -> Trials:
    num = Counter(row["status"] for row in rows)
    return Trials(
        finished=num[TrialState.FINISHED],
        failed=num[TrialState.FAILED] + num[TrialState.LOST],
        killed=num[TrialState.KILLED],
        pending=sum(num[state] for state in _PENDING),
    )


def _compared(test: Difference, p_holm: float | None, scale: float | None) -> dict[str, Any]:
    """Return the numbers of a comparison. scale: nats per token for a difference of 1 in the metric."""
    line: dict[str, Any] = {name: getattr(test, name) for name in _OF_TEST} | {"n_pairs": test.n, "p_holm": p_holm}
    if test.delta is not None and scale is not None:
        line["delta_nats"] = test.delta * scale
        if test.std_error is not None and test.df is not None:
            line["p_margin"] = p_margin(test.delta * scale, test.std_error * scale, test.df)
            line["interval_nats"] = (test.ci_low or 0.0) * scale, (test.ci_high or 0.0) * scale
    return line


def _verdict(line: Row, is_feasible: bool) -> Verdict | None:
    if not is_feasible:
        return "INFEASIBLE"
    return by_numbers(line.get("delta_nats"), line.get("interval_nats"), line["p_holm"], line["n_pairs"])


def _seeds_needed(test: Difference, verdict: Verdict | None, num_tests: int, scale: float | None) -> int | None:
    """Return the further seeds for a decision. verdict: by the numbers alone, since more seeds do not replace lost ones."""
    required: int | None = None
    if verdict in ("WIN", "LOSS", "NOISE"):
        required = 0
    elif verdict == "INFEASIBLE":
        pass  # more seeds do not change it
    elif test.std is None:
        required = WIN_MIN_SEEDS if test.n < WIN_MIN_SEEDS else None
    elif test.delta is not None and scale is not None:
        required = seeds_required(test.std * scale, abs(test.delta * scale), num_tests)
    return None if required is None else max(0, required - test.n)

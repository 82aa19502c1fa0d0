"""The ablation: every arm against the control over seeds, and a refusal where a comparison would be false.

Only finished trials of an arm's current configuration enter a mean. All others are counted beside it: failed, pending,
over the cap, finished without this metric. A seed over the cap stays in the mean, since the control of a bit-width
sweep is often too big, but its arm is INFEASIBLE whatever its number.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from results.analysis.statistics import Difference, difference, holm, nats_per_token, p_margin, seeds_required, verdict
from results.loading.runs import current
from results.schema import COLUMNS, NAMES, Dtype, Row, records, typed_frame
from trainer.errors import InputError
from trainer.limits import WIN_MIN_SEEDS
from trainer.records.results import LOSSES, METRICS
from trainer.records.states import TrialState

_SAME_EVALUATION = ("tokenizer_sha", "data_sha", "scored_tokens", "scored_bytes", "eval_seq_len")
_CIRCUMSTANCES = ("hardware", "world_size", "torch_version")  # may differ, but not in silence; so may the code
_FAILED = tuple(state for state in TrialState if state.is_failed)
_PENDING = tuple(state for state in TrialState if state.is_open)
_DTYPES: dict[str, Dtype] = {
    "arm": "string",
    "n": "Int64",
    "mean": "Float64",
    "std": "Float64",
    "delta": "Float64",
    "ci_low": "Float64",
    "ci_high": "Float64",
    "p": "Float64",
    "p_holm": "Float64",
    "verdict": "string",
    "test": "string",
    "n_pairs": "Int64",
    "delta_nats": "Float64",
    "p_margin": "Float64",
    "seeds_needed": "Int64",
    "n_over_cap": "Int64",
    "n_failed": "Int64",
    "n_pending": "Int64",
    "n_missing": "Int64",
    "reason": "string",
}


class NotComparableError(InputError, ValueError):
    """These rows were measured in different ways; their difference would not be the arm's effect."""


def ablation(
    trials: pd.DataFrame,
    control: str | None = None,
    metric: str = "sliding_bpb",
    *,
    on_mismatch: Literal["raise", "mark"] = "raise",
    assume_same: str | None = None,
) -> pd.DataFrame:
    """Every arm against the control, paired by seed; by Welch's test where fewer than two seeds are shared.

    Args:
        trials: rows as from `results.load`. Needs `arm`, `seed` and the metric; a column that is absent is unknown.
        control: the arm to compare with. None: the sweep's own (`trials.attrs`), else the first arm.
        metric: any numeric column, lower is better. The verdict exists for bpb metrics and `val_loss_nats` only.
        on_mismatch: what to do with an arm whose evaluation differs from the control's: raise, or give its row no
            delta, the verdict NOT COMPARABLE and the reason.
        assume_same: why an evaluation that was not recorded (null, as in imported rows) may be taken for the others';
            shown as the reason of each arm that it lets through. None: null is comparable with null only.
    Returns:
        One row per arm, the control first: arm, n, mean, std over all its finished seeds; delta (arm - control),
        95 % interval and p of the `test` over n_pairs pairs of seeds (Welch: the seeds of the smaller side); p_holm
        (Holm over the arms); verdict (on p_holm); delta_nats per token; p_margin (one-sided, uncorrected: that the
        improvement is below 0.005 nats); seeds_needed (how many more would settle it, if the difference and its spread
        are as observed: see `stats.seeds_required`; 0 and NOISE: there is no such effect; without a spread, as many as
        the rule lacks at least); counts of what is not in the mean or over the cap; reason. std is the sample standard
        deviation. Null = cannot be said.
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
            notes += _about_comparison(mine, reference, metric, test, assume_same)
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


@dataclass(frozen=True)
class Arms:
    """The current rows of every arm, the control first, the others in the order of the table.

    reference: the control's rows in which the metric was measured. problems: arm -> why it cannot be compared with them.
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
    """Rows by arm, with every column of the schema; an absent one is None, but for status: finished. Args as `ablation`.

    Raises:
        InputError: no such metric or control, or rows without arm or seed.
        NotComparableError: a seed of an arm occurs twice; or an arm has a problem, unless problems are to be marked.
    """
    by_arm: dict[str, list[Row]] = {}
    for row in _checked(trials, metric):
        by_arm.setdefault(row["arm"], []).append(row)
    control = _control(control, trials, list(by_arm))
    reference = measured(by_arm[control], metric)
    problems: dict[str, str] = {}
    for arm, rows in ({control: by_arm[control]} | by_arm).items():
        spoiled = problems.get(control)  # a control that mixes evaluations compares with nothing
        problem = spoiled or mismatch(measured(rows, metric), reference, metric, nulls_match=assume_same is not None)
        if problem and on_mismatch == "raise":
            fix = f"{problem}; leave out or repeat one of them"
            raise NotComparableError("trials", "comparison", "refused", fix)
        if problem:
            problems[arm] = problem
    return Arms(control, {control: by_arm[control]} | by_arm, reference, problems)


def measured(rows: Sequence[Row], metric: str) -> list[Row]:
    return [row for row in rows if row["status"] == TrialState.FINISHED and row[metric] is not None]


def by_seed(rows: Sequence[Row], metric: str) -> dict[int, float]:
    return {row["seed"]: float(row[metric]) for row in rows}


def mismatch(rows: Sequence[Row], reference: Sequence[Row], metric: str, *, nulls_match: bool = False) -> str | None:
    """Why these measured rows cannot be compared with the reference's in this metric; None where they can."""
    if metric not in LOSSES or not reference:
        return None
    for column in _evaluation(metric):
        known = [row for row in (*reference, *rows) if row[column] is not None]
        first = known[0] if nulls_match and known else reference[0]
        for row in rows:
            if row[column] != first[column] and not (nulls_match and row[column] is None):
                return f"{_named(row)} has {column} {_shown(row[column])}, {_named(first)} has {_shown(first[column])}"
    return None


def circumstances(mine: Sequence[Row], reference: Sequence[Row]) -> list[str]:
    """What differs from the control besides what the arm asked for: not refused, but told."""
    notes = []
    has_code_sha = all(row["code_sha"] is not None for row in (*mine, *reference))  # a commit may change no code
    for column in (*_CIRCUMSTANCES, "code_sha" if has_code_sha else "git_sha"):
        here, there = (sorted({str(r[column]) for r in rows if r[column] is not None}) for rows in (mine, reference))
        if here and there and here != there:
            notes.append(f"{column} {'/'.join(here)}, control {'/'.join(there)}")
    return notes


def nats_per_unit(metric: str, rows: Sequence[Row]) -> float | None:
    """Nats per token for a difference of 1 in the metric, in the evaluation that these comparable rows share.

    From the scored bytes and tokens; rows without them (imported logs) say it by val_loss_nats over post_quant_bpb. None
    where the metric has no such meaning or nobody knows.
    """
    if metric == "val_loss_nats":
        return 1.0
    if metric not in LOSSES:
        return None
    for row in rows:
        if row["scored_bytes"] is not None and row["scored_tokens"] is not None:
            return nats_per_token(1.0, row["scored_bytes"], row["scored_tokens"])
    for row in rows:
        if row["val_loss_nats"] is not None and row["post_quant_bpb"]:
            return float(row["val_loss_nats"] / row["post_quant_bpb"])
    return None


def _evaluation(metric: str) -> tuple[str, ...]:
    return (*_SAME_EVALUATION, *METRICS[metric].evaluated_with)


def _named(row: Row) -> str:
    return f"{row['arm']} seed {row['seed']}"


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _checked(trials: pd.DataFrame, metric: str) -> list[Row]:
    if metric not in trials or not pd.api.types.is_numeric_dtype(trials[metric]):
        numeric = ", ".join(c.name for c in COLUMNS if c.dtype in ("Int64", "Float64"))
        raise InputError("ablation", "metric", metric, f"no such number in these trials; use one of {numeric}")
    for name in ("arm", "seed"):
        if name not in trials:
            raise InputError("ablation", "trials", name, "column missing; give rows as from results.load")
    absent: Row = dict.fromkeys(NAMES) | {"status": TrialState.FINISHED}
    rows = [absent | row for row in records(current(trials))]
    seen: dict[tuple[str, int], Row] = {}
    for row in rows:
        other = seen.setdefault((row["arm"], row["seed"]), row)
        if other is not row:
            sweeps = " and ".join(dict.fromkeys(_shown(r["sweep"]) for r in (other, row)))
            problem = f"occurs twice (sweeps: {sweeps}); compare one sweep at a time"
            raise NotComparableError("trials", "arm", _named(row), problem)
    return rows


def _control(asked: str | None, trials: pd.DataFrame, arms: list[str]) -> str:
    name = asked if asked is not None else trials.attrs.get("control")
    if name is None and arms:
        return arms[0]
    if name not in arms:
        raise InputError("ablation", "control", name, f"not among the arms: {', '.join(arms) or 'there are none'}")
    return str(name)


def _counted(arm: str, rows: list[Row], metric: str) -> tuple[dict[str, Any], list[str]]:
    """An arm's own numbers, and what is to be said of the trials that are not among them."""
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


def _about_comparison(
    mine: list[Row], reference: list[Row], metric: str, test: Difference, assume_same: str | None
) -> list[str]:
    """What a reader must know of this difference."""
    if not mine or not reference:
        return []
    both = [*mine, *reference]
    notes = [test.note or ""]
    alone = len(mine) - test.n
    if test.test == "paired" and alone:
        notes.append(f"{alone} seeds without a partner in the control")
    if metric in LOSSES:
        unknown = [column for column in _evaluation(metric) if any(row[column] is None for row in both)]
        if unknown:
            why = f"taken for the same: {assume_same}" if assume_same else "comparable only if it was the same"
            notes.append(f"evaluation not recorded ({', '.join(unknown)}), {why}")
        unchecked = sum(row["is_within_cap"] is None for row in mine)
        notes.append(f"cap not checked on {unchecked} seeds: size unknown" if unchecked else "")
        if nats_per_unit(metric, both) is None:
            notes.append("no verdict: without token and byte counts, bpb cannot be converted into nats")
    return notes + circumstances(mine, reference)


def _judged(
    test: Difference, p_holm: float | None, num_tests: int, scale: float | None, is_feasible: bool, metric: str
) -> dict[str, Any]:
    """The columns of a comparison that was made. `scale`: nats per token for 1 of the metric."""
    line: dict[str, Any] = {
        "n_pairs": test.n,
        "test": test.test,
        "delta": test.delta,
        "ci_low": test.ci_low,
        "ci_high": test.ci_high,
        "p": test.p,
        "p_holm": p_holm,
    }
    if metric not in LOSSES:
        return line
    if test.delta is not None and scale is not None:
        line["delta_nats"] = test.delta * scale
        if test.std_error is not None and test.df is not None:
            line["p_margin"] = p_margin(test.delta * scale, test.std_error * scale, test.df)
    line["verdict"] = verdict(line.get("delta_nats"), p_holm, test.n, is_feasible)
    line["seeds_needed"] = _seeds_needed(line, test, num_tests, scale)
    return line


def _seeds_needed(line: dict[str, Any], test: Difference, num_tests: int, scale: float | None) -> int | None:
    if line["verdict"] == "INFEASIBLE":
        return None  # no number of seeds makes it smaller
    if line["verdict"] in ("WIN", "LOSS"):
        return 0
    if test.std is None:
        return WIN_MIN_SEEDS - test.n if test.n < WIN_MIN_SEEDS else None
    if test.delta is None or scale is None:
        return None
    required = seeds_required(test.std * scale, abs(test.delta * scale), num_tests)
    return None if required is None else max(0, required - test.n)

"""The ablation: every arm against the control, paired by seed, and a refusal where a comparison would be false.

Only finished trials of an arm's current configuration enter a mean. All others are counted beside it: failed, pending,
over the cap, finished without this metric. A seed over the cap stays in the mean, since the control of a bit-width
sweep is often too big, but its arm is INFEASIBLE whatever its number.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from results.schema import COLUMNS, IN_NATS, NAMES, Dtype, Row, records, typed_frame
from results.stats import holm, nats_per_token, paired, verdict
from trainer.errors import InputError

_SAME_EVALUATION = ("tokenizer_sha", "data_sha", "scored_tokens", "scored_bytes", "eval_seq_len")
_NEEDS_STRIDE = ("sliding_bpb", "ttt_bpb")
_FAILED = ("failed", "killed", "invalid", "lost")
_PENDING = ("queued", "running")
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
    "n_pairs": "Int64",
    "delta_nats": "Float64",
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
) -> pd.DataFrame:
    """Every arm against the control over their shared seeds.

    Args:
        trials: rows as from `results.load`. Needs `arm`, `seed` and the metric; a column that is absent is unknown.
        control: the arm to compare with. None: the sweep's own (`trials.attrs`), else the first arm.
        metric: any numeric column, lower is better. The verdict exists for bpb metrics and `val_loss_nats` only.
        on_mismatch: what to do with an arm whose evaluation differs from the control's: raise, or give its row no
            delta, the verdict NOT COMPARABLE and the reason.
    Returns:
        One row per arm, the control first: arm, n, mean, std over all its finished seeds; delta (arm - control),
        95 % interval and p over the n_pairs seeds shared with the control; p_holm (Holm over the arms); verdict (on
        p_holm); delta_nats per token; counts of what is not in the mean or over the cap; reason. std is the sample
        standard deviation. Null = cannot be said.
    Raises:
        NotComparableError: rows were scored on other tokens, bytes, data, tokenizer or evaluation settings, or a seed of
            an arm occurs twice.
        InputError: no such control, no such metric.
    """
    rows = _checked(trials, metric)
    by_arm: dict[str, list[Row]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], []).append(row)
    control = _control(control, trials, list(by_arm))
    reference = _measured(by_arm[control], metric)
    spoiled = mismatch(reference, reference, metric)
    if spoiled and on_mismatch == "raise":
        raise _refusal(spoiled)
    out = []
    for arm in sorted(by_arm, key=lambda name: name != control):  # stable: the others keep their order
        problem = spoiled or mismatch(_measured(by_arm[arm], metric), reference, metric)
        if problem and on_mismatch == "raise":
            raise _refusal(problem)
        out.append(_arm(arm, by_arm[arm], reference, metric, arm == control, problem))
    for line, p_holm in zip(out, holm([line["p"] for line in out]), strict=True):
        line["p_holm"] = p_holm
        if line["verdict"] is None and metric in IN_NATS:
            line["verdict"] = verdict(line["delta_nats"], p_holm, line["n_pairs"], line["n_over_cap"] == 0)
    return typed_frame(out, _DTYPES)


def mismatch(rows: Sequence[Row], reference: Sequence[Row], metric: str) -> str | None:
    """Why these measured rows cannot be compared with the reference's in this metric; None where they can."""
    if metric not in IN_NATS or not reference:
        return None
    first = reference[0]
    for column in (*_SAME_EVALUATION, *(("eval_stride",) if metric in _NEEDS_STRIDE else ())):
        for row in rows:
            if row[column] != first[column]:
                return (
                    f"{row['arm']} seed {row['seed']} has {column} {_shown(row[column])}, "
                    f"{first['arm']} seed {first['seed']} has {_shown(first[column])}"
                )
    return None


def current(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of each arm's current configuration; rows whose column is_current is null or absent count as such."""
    if "is_current" not in trials:
        return trials
    return trials[trials["is_current"].astype("boolean").fillna(True)]


def _refusal(problem: str) -> NotComparableError:
    return NotComparableError("trials", "comparison", "refused", f"{problem}; leave out or repeat one of them")


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _measured(rows: Sequence[Row], metric: str) -> list[Row]:
    return [row for row in rows if row["status"] == "finished" and row[metric] is not None]


def _checked(trials: pd.DataFrame, metric: str) -> list[Row]:
    """The current rows with every column of the schema; an absent one is None, but for status: finished."""
    if metric not in trials or not pd.api.types.is_numeric_dtype(trials[metric]):
        numeric = ", ".join(c.name for c in COLUMNS if c.dtype in ("Int64", "Float64"))
        raise InputError("ablation", "metric", metric, f"no such number in these trials; use one of {numeric}")
    for name in ("arm", "seed"):
        if name not in trials:
            raise InputError("ablation", "trials", name, "column missing; give rows as from results.load")
    absent: Row = dict.fromkeys(NAMES) | {"status": "finished"}
    rows = [absent | row for row in records(current(trials))]
    seen: dict[tuple[str, int], Row] = {}
    for row in rows:
        other = seen.setdefault((row["arm"], row["seed"]), row)
        if other is not row:
            sweeps = " and ".join(dict.fromkeys(_shown(r["sweep"]) for r in (other, row)))
            problem = f"occurs twice (sweeps: {sweeps}); compare one sweep at a time"
            raise NotComparableError("trials", "arm", f"{row['arm']} seed {row['seed']}", problem)
    return rows


def _control(asked: str | None, trials: pd.DataFrame, arms: list[str]) -> str:
    name = asked if asked is not None else trials.attrs.get("control")
    if name is None and arms:
        return arms[0]
    if name not in arms:
        raise InputError("ablation", "control", name, f"not among the arms: {', '.join(arms) or 'there are none'}")
    return str(name)


def _arm(
    arm: str, rows: list[Row], reference: list[Row], metric: str, is_control: bool, problem: str | None
) -> dict[str, Any]:
    """One arm's row without its p_holm and verdict, except where the verdict is already settled."""
    finished = [row for row in rows if row["status"] == "finished"]
    values = {row["seed"]: float(row[metric]) for row in finished if row[metric] is not None}
    over_cap = sum(row["is_within_cap"] is False for row in finished)
    line: dict[str, Any] = {
        "arm": arm,
        "n": len(values),
        "mean": statistics.fmean(values.values()) if values else None,
        "std": statistics.stdev(values.values()) if len(values) > 1 else None,
        "n_over_cap": over_cap,
        "n_failed": sum(row["status"] in _FAILED for row in rows),
        "n_pending": sum(row["status"] in _PENDING for row in rows),
        "n_missing": len(finished) - len(values),
        "p": None,
        "verdict": "CONTROL" if is_control else "NOT COMPARABLE" if problem else None,
    }
    notes = [
        f"{over_cap} of {len(finished)} seeds over the cap" if over_cap else "",
        *(
            f"{count} {status}"
            for status, count in Counter(row["status"] for row in rows).items()
            if status != "finished"
        ),
        f"{line['n_missing']} finished without {metric}" if line["n_missing"] else "",
    ]
    if line["verdict"] is None:
        base = {row["seed"]: float(row[metric]) for row in reference}
        shared = [seed for seed in values if seed in base]
        test = paired([values[seed] for seed in shared], [base[seed] for seed in shared])
        line |= {"n_pairs": test.n, "delta": test.delta, "ci_low": test.ci_low, "ci_high": test.ci_high, "p": test.p}
        line["delta_nats"] = _nats(test.delta, metric, reference)
        alone = len(values) - len(shared)
        notes += [f"{alone} seeds without a partner in the control" if alone and shared else "", test.note or ""]
    line["reason"] = "; ".join(filter(None, [*notes, problem])) or None
    return line


def _nats(delta: float | None, metric: str, reference: list[Row]) -> float | None:
    """`delta` in nats per token; None where the metric has no such meaning or the totals are unknown."""
    if delta is None or metric == "val_loss_nats":
        return delta
    if metric not in IN_NATS or not reference:
        return None
    scored_bytes, scored_tokens = reference[0]["scored_bytes"], reference[0]["scored_tokens"]
    if scored_bytes is None or scored_tokens is None:
        return None
    return nats_per_token(delta, scored_bytes, scored_tokens)

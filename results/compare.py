"""The ablation: every arm against the control, paired by seed, and a refusal where a comparison would be false.

Only finished trials of an arm's current configuration enter a mean. All others are counted beside it: failed, pending,
over the cap, finished without this metric. A seed over the cap stays in the mean, since the control of a bit-width
sweep is often too big, but its arm is INFEASIBLE whatever its number.
"""

from typing import Any, Literal

import pandas as pd

from results.schema import BPB_METRICS, COLUMNS, Dtype, frame, typed_frame
from results.stats import Paired, holm, nats_per_token, paired, verdict
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
    arms = list(dict.fromkeys(rows["arm"]))
    control = _control(control, trials, arms)
    measured = rows[(rows["status"] == "finished") & rows[metric].notna()]
    reference = measured[measured["arm"] == control]
    spoiled = mismatch(reference, reference, metric)
    if spoiled and on_mismatch == "raise":
        raise _refusal(spoiled)
    out = []
    for arm in sorted(arms, key=lambda name: name != control):  # stable: the others keep their order
        problem = spoiled or mismatch(measured[measured["arm"] == arm], reference, metric)
        if problem and on_mismatch == "raise":
            raise _refusal(problem)
        out.append(_arm(arm, rows[rows["arm"] == arm], reference, metric, control, problem))
    for row, p_holm in zip(out, holm([row["p"] for row in out]), strict=True):
        row["p_holm"] = p_holm
        if row["verdict"] is None and row["n_pairs"] is not None:
            row["verdict"] = _verdict(row, metric)
    return typed_frame(out, _DTYPES)


def mismatch(rows: pd.DataFrame, reference: pd.DataFrame, metric: str) -> str | None:
    """Why these measured rows cannot be compared with the reference's in this metric; None where they can."""
    if metric not in (*BPB_METRICS, "val_loss_nats") or reference.empty:
        return None
    first = reference.iloc[0]
    for column in (*_SAME_EVALUATION, *(("eval_stride",) if metric in _NEEDS_STRIDE else ())):
        same = rows[column].isna() if pd.isna(first[column]) else (rows[column] == first[column]).fillna(False)
        if not same.all():
            bad = rows[~same.astype(bool)].iloc[0]
            return (
                f"{bad['arm']} seed {bad['seed']} has {column} {_shown(bad[column])}, "
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


def _shown(value: Any) -> str:
    return "none" if pd.isna(value) else str(value)


def _checked(trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The current rows with every column of the schema; an absent one is null, but for status: finished."""
    numeric = [c.name for c in COLUMNS if c.dtype in ("Int64", "Float64")]
    if metric not in trials or not pd.api.types.is_numeric_dtype(trials[metric]):
        raise InputError(
            "ablation", "metric", metric, f"no such number in these trials; use one of {', '.join(numeric)}"
        )
    for name in ("arm", "seed"):
        if name not in trials:
            raise InputError("ablation", "trials", name, "column missing; give rows as from results.load")
    rows = current(trials).copy()
    absent = frame([{"status": "finished"}] * len(rows)).set_index(rows.index)
    rows = rows.join(absent[[name for name in absent if name not in rows]])
    rows[metric] = rows[metric].astype("Float64")
    twice = rows[rows.duplicated(["arm", "seed"])]
    if not twice.empty:
        first = twice.iloc[0]
        sweeps = " and ".join(sorted(set(rows["sweep"].dropna()))) or "unknown"
        raise NotComparableError(
            "trials",
            "arm",
            f"{first['arm']} seed {first['seed']}",
            f"occurs twice (sweeps: {sweeps}); compare one sweep at a time",
        )
    return rows


def _control(asked: str | None, trials: pd.DataFrame, arms: list[str]) -> str:
    name = asked if asked is not None else trials.attrs.get("control")
    if name is None and arms:
        return arms[0]
    if name not in arms:
        raise InputError("ablation", "control", name, f"not among the arms: {', '.join(arms) or 'there are none'}")
    return str(name)


def _arm(
    arm: str, rows: pd.DataFrame, reference: pd.DataFrame, metric: str, control: str, problem: str | None
) -> dict[str, Any]:
    """One arm's row without its p_holm and verdict, except where the verdict is already settled."""
    finished = rows[rows["status"] == "finished"]
    values = finished.dropna(subset=[metric]).set_index("seed")[metric].astype(float)
    over_cap = int((finished["is_within_cap"] == False).fillna(False).sum())  # noqa: E712
    row: dict[str, Any] = {
        "arm": arm,
        "n": len(values),
        "mean": float(values.mean()) if len(values) else None,
        "std": float(values.std(ddof=1)) if len(values) > 1 else None,
        "n_over_cap": over_cap,
        "n_failed": int(rows["status"].isin(_FAILED).sum()),
        "n_pending": int(rows["status"].isin(_PENDING).sum()),
        "n_missing": len(finished) - len(values),
        "p": None,
        "verdict": None,
        "n_pairs": None,
    }
    notes = [
        f"{over_cap} of {len(finished)} seeds over the cap" if over_cap else "",
        f"{row['n_failed']} failed" if row["n_failed"] else "",
        f"{row['n_pending']} pending" if row["n_pending"] else "",
        f"{row['n_missing']} finished without {metric}" if row["n_missing"] else "",
    ]
    if arm == control:
        row["verdict"] = "CONTROL"
    elif problem:
        row["verdict"] = "NOT COMPARABLE"
    else:
        base = reference.set_index("seed")[metric].astype(float)
        shared = [seed for seed in values.index if seed in base.index]
        test: Paired = paired(values[shared].tolist(), base[shared].tolist())
        row |= {"n_pairs": test.n, "delta": test.delta, "ci_low": test.ci_low, "ci_high": test.ci_high, "p": test.p}
        row["delta_nats"] = _nats(test.delta, metric, reference)
        alone = len(values) - len(shared)
        notes += [f"{alone} seeds without a partner in the control" if alone and shared else "", test.note or ""]
    row["reason"] = "; ".join([*filter(None, notes), *([problem] if problem else [])]) or None
    return row


def _nats(delta: float | None, metric: str, reference: pd.DataFrame) -> float | None:
    """`delta` in nats per token; None where the metric has no such meaning or the totals are unknown."""
    if delta is None or metric == "val_loss_nats":
        return delta
    if metric not in BPB_METRICS or reference.empty:
        return None
    scored_bytes, scored_tokens = reference.iloc[0]["scored_bytes"], reference.iloc[0]["scored_tokens"]
    if pd.isna(scored_bytes) or pd.isna(scored_tokens):
        return None
    return nats_per_token(delta, int(scored_bytes), int(scored_tokens))


def _verdict(row: dict[str, Any], metric: str) -> str | None:
    if metric not in (*BPB_METRICS, "val_loss_nats"):
        return None
    return verdict(row["delta_nats"], row["p_holm"], row["n_pairs"], row["n_over_cap"] == 0)

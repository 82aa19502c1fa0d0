"""What the ablation table says, as text, before anyone draws it: cells per arm, failures, one verdict per arm.

Markdown, LaTeX and the terminal draw the same cells, so they cannot disagree. Numbers that differ in meaning between
seeds are shown at their worst (artifact bytes: the largest), all others as means over the finished seeds.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from results.collect import load
from results.compare import ablation, current
from results.schema import records
from trainer.errors import InputError
from trainer.limits import ARTIFACT_CAP_BYTES, WIN_MIN_SEEDS

NONE = "–"
_STEP_TAX = 0.01  # a difference in steps below this share goes unmentioned
_METRIC_NAMES = {"sliding_bpb": "sliding", "post_quant_bpb": "post-quant"}
_CAVEATS = ("hardware", "world_size", "torch_version", "git_sha")


@dataclass(frozen=True)
class Cell:
    """Parts that are aligned among themselves below each other, such as a mean and its spread."""

    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.parts))


@dataclass(frozen=True)
class Arm:
    name: str
    is_control: bool
    verdict: str | None
    cells: dict[str, Cell]
    sentence: str


@dataclass(frozen=True)
class View:
    sweep: str
    question: str | None
    control: str | None
    metric: str
    arms: list[Arm]
    unfinished: list[tuple[str, str, str, str]]  # arm, seed, status and kind, reason
    pending: str | None
    remarks: list[str]
    trials: pd.DataFrame = field(repr=False)
    ablation: pd.DataFrame = field(repr=False)


def headers(view: View) -> dict[str, tuple[str, ...]]:
    """Column -> its heading, a line for each part of the text that may stand below the other."""
    return {
        "arm": ("arm",),
        "seeds": ("n",),
        "float": ("float", "bpb"),
        "post_quant": ("post-", "quant", "bpb"),
        "gap": ("quant gap", "± std"),
        "delta": (f"Δ {_METRIC_NAMES[view.metric]}", "± 95 % CI"),
        "bytes": ("largest artifact", "bytes, % of cap"),
        "steps": ("steps × ms",),
        "qat": ("QAT on at step,", "covers"),
    }


def view_run(run: str | Path, control: str | None = None) -> View:
    """Everything the table of a run says.

    Args:
        run: the run folder.
        control: the arm to compare with; None: that of sweep.yaml, else the first arm.
    Raises:
        InputError: no run there, or `control` is not among its arms.
    """
    trials = load(run)
    remarks = [str(problem) for problem in trials.attrs["problems"]]
    arms = list(dict.fromkeys(trials["arm"]))
    own = trials.attrs["control"]
    if control is not None and control not in arms:
        raise InputError("--control", "arm", control, f"not among the arms: {', '.join(arms) or 'there are none'}")
    if control is None and own is not None and own not in arms:
        remarks.append(f"the control {own} has no trial; deltas are against the first arm")
    chosen = control or (own if own in arms else None) or (arms[0] if arms else None)
    rows = current(trials)
    metric = _headline(rows)
    compared = ablation(trials, chosen, metric, on_mismatch="mark") if arms else pd.DataFrame()
    made = [_arm(line, rows, str(chosen), metric) for line in records(compared)]
    superseded = len(trials) - len(rows)
    if superseded:
        remarks.append(f"{superseded} trials of earlier configurations are in table.csv, but not in this table")
    return View(
        sweep=trials.attrs["sweep"],
        question=trials.attrs["question"],
        control=chosen,
        metric=metric,
        arms=made,
        unfinished=_unfinished(rows),
        pending=_pending(rows),
        remarks=remarks,
        trials=trials,
        ablation=compared,
    )


def _headline(rows: pd.DataFrame) -> str:
    """The sliding bpb where every finished trial has one, else the post-quant bpb."""
    finished = rows[rows["status"] == "finished"]
    return "sliding_bpb" if len(finished) and finished["sliding_bpb"].notna().all() else "post_quant_bpb"


def _arm(line: dict[str, Any], rows: pd.DataFrame, control: str, metric: str) -> Arm:
    mine = rows[rows["arm"] == line["arm"]]
    done = mine[(mine["status"] == "finished") & mine["post_quant_bpb"].notna()]
    reference = rows[(rows["arm"] == control) & (rows["status"] == "finished")]
    is_control = line["arm"] == control
    largest = done["artifact_bytes"].max()
    percent = (
        "" if pd.isna(largest) else f"{100 * largest / ARTIFACT_CAP_BYTES:.1f}%{'!' if line['n_over_cap'] else ''}"
    )
    step_ms = _number(done["step_ms"].mean(), ",.1f")
    cells = {
        "arm": Cell((line["arm"],)),
        "seeds": Cell((str(len(done)) if len(done) == len(mine) else f"{len(done)}/{len(mine)}",)),
        "float": Cell((_number(done["float_bpb"].mean(), ".4f"),)),
        "post_quant": Cell((_number(done["post_quant_bpb"].mean(), ".4f"),)),
        "gap": Cell((_number(done["quant_gap"].mean(), "+.4f"), _spread(done["quant_gap"].std()))),
        "delta": Cell(("control", "") if is_control else (_number(line["delta"], "+.4f"), _half_width(line))),
        "bytes": Cell((_number(largest, ",.0f"), percent)),
        "steps": Cell((_number(done["steps"].mean(), ",.0f"), *(("", "") if step_ms == NONE else ("×", step_ms)))),
        "qat": Cell(_qat(done)),
    }
    return Arm(line["arm"], is_control, line["verdict"], cells, _sentence(line, done, reference, control, metric))


def _qat(done: pd.DataFrame) -> tuple[str, str, str]:
    """On-step, share covered, and whether it was measured to act. `never`: asked for, but its gate did not open."""
    if done["qat_on_step"].isna().all() and done["qat_coverage"].isna().all():
        return (NONE, "", "")
    on_step = done["qat_on_step"].mean()
    live = done["qat_is_live"].dropna()
    mark = "?" if live.empty else ("live" if live.all() else "DEAD")
    return (
        "never" if pd.isna(on_step) else f"{on_step:,.0f}",
        _number(done["qat_coverage"].min() * 100, ".0f", "%"),
        mark,
    )


def _sentence(line: dict[str, Any], done: pd.DataFrame, reference: pd.DataFrame, control: str, metric: str) -> str:
    """What can be said of this arm: number, difference, verdict, and everything that could fool a reader."""
    name = _METRIC_NAMES[metric]
    said = f"{line['arm']}: no {name} bpb yet" if line["mean"] is None else f"{line['arm']}: {name} {line['mean']:.4f}"
    if line["verdict"] == "CONTROL":
        said += ", the control"
    elif line["delta"] is not None:
        interval = "" if line["ci_low"] is None else f" [{line['ci_low']:+.4f}, {line['ci_high']:+.4f}]"
        p = "" if line["p_holm"] is None else f", p_holm {line['p_holm']:.2g}"
        said += f" ({line['delta']:+.4f}{interval} against {control}{p})"
    if line["verdict"] not in (None, "CONTROL"):
        said += f": {line['verdict']}"
    if line["verdict"] == "TOO FEW SEEDS":
        said += f" ({line['n_pairs']} of {WIN_MIN_SEEDS})"
    caveats = [line["reason"]] if line["reason"] else []
    caveats += _caveats(done, reference) + _remarks(done)
    return f"{said}. {'; '.join(caveats)}.".replace(". .", ".") if caveats else f"{said}."


def _caveats(done: pd.DataFrame, reference: pd.DataFrame) -> list[str]:
    """What differs from the control besides what the arm asked for."""
    if done.empty or reference.empty:
        return []
    found = []
    steps, base = done["steps"].mean(), reference["steps"].mean()
    if base and not pd.isna(steps) and abs(steps / base - 1) >= _STEP_TAX:
        found.append(f"{abs(steps / base - 1):.1%} {'fewer' if steps < base else 'more'} steps than the control")
    for column in _CAVEATS:
        mine, theirs = (sorted(set(rows[column].dropna().astype(str))) for rows in (done, reference))
        if mine and theirs and mine != theirs:
            found.append(f"{column} {'/'.join(mine)}, control {'/'.join(theirs)}")
    return found


def _remarks(done: pd.DataFrame) -> list[str]:
    found = []
    if (done["qat_is_live"] == False).fillna(False).any():  # noqa: E712
        found.append("QAT WAS NOT LIVE: it was asked for and changed nothing")
    covered = done["qat_coverage"].min()
    if not pd.isna(covered) and covered < 1:
        found.append(f"QAT covers {covered:.0%} of the quantized elements")
    return found + [str(note) for note in dict.fromkeys(done["notes"].dropna())]


def _unfinished(rows: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Trials that will not bring a number by themselves, and finished ones whose number cannot be read."""
    failed = ~rows["status"].isin(["finished", "queued", "running"])
    unreadable = (rows["status"] == "finished") & rows["post_quant_bpb"].isna()
    lines = []
    for row in records(rows[failed | unreadable]):
        kind = f" ({row['failure_kind']})" if row["failure_kind"] else ""
        lines.append((row["arm"], str(row["seed"]), f"{row['status']}{kind}", row["reason"] or "no reason given"))
    return lines


def _pending(rows: pd.DataFrame) -> str | None:
    waiting = rows[rows["status"].isin(["running", "queued"])]
    if waiting.empty:
        return None
    parts = [
        f"{status}: {', '.join(f'{arm} seed {seed}' for arm, seed in zip(group['arm'], group['seed'], strict=True))}"
        for status, group in waiting.groupby("status", sort=False)
    ]
    return "; ".join(parts)


def _number(value: Any, spec: str, unit: str = "") -> str:
    return NONE if pd.isna(value) else format(float(value), spec) + unit


def _spread(value: Any) -> str:
    return "" if pd.isna(value) else f"±{value:.4f}"


def _half_width(line: dict[str, Any]) -> str:
    return "" if line["ci_low"] is None else _spread((line["ci_high"] - line["ci_low"]) / 2)

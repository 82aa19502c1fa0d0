"""What the ablation table says, as text, before anyone draws it: cells per arm, failures, one verdict per arm.

Markdown, LaTeX and the terminal draw the same cells, so they cannot disagree. Numbers that differ in meaning between
seeds are shown at their worst (artifact bytes: the largest), all others as means over the finished seeds.
"""

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from results.collect import load
from results.compare import ablation, current
from results.schema import Row, records
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
    rows = records(current(trials))
    metric = _headline(rows)
    compared = ablation(trials, chosen, metric, on_mismatch="mark") if arms else pd.DataFrame()
    by_arm: dict[str, list[Row]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], []).append(row)
    reference = _measured(by_arm.get(str(chosen), []))
    superseded = len(trials) - len(rows)
    if superseded:
        remarks.append(f"{superseded} trials of earlier configurations are in table.csv, but not in this table")
    return View(
        sweep=trials.attrs["sweep"],
        question=trials.attrs["question"],
        control=chosen,
        metric=metric,
        arms=[_arm(line, by_arm[line["arm"]], reference, str(chosen), metric) for line in records(compared)],
        unfinished=_unfinished(rows),
        pending=_pending(rows),
        remarks=remarks,
        trials=trials,
        ablation=compared,
    )


def _headline(rows: list[Row]) -> str:
    """The sliding bpb where every finished trial has one, else the post-quant bpb."""
    finished = [row for row in rows if row["status"] == "finished"]
    return "sliding_bpb" if finished and all(row["sliding_bpb"] is not None for row in finished) else "post_quant_bpb"


def _measured(rows: list[Row]) -> list[Row]:
    """Finished with a score of the artifact; an imported log may have the sliding one alone."""
    scored = [row for row in rows if row["post_quant_bpb"] is not None or row["sliding_bpb"] is not None]
    return [row for row in scored if row["status"] == "finished"]


def _values(rows: list[Row], name: str) -> list[Any]:
    return [row[name] for row in rows if row[name] is not None]


def _mean(rows: list[Row], name: str) -> float | None:
    values = _values(rows, name)
    return statistics.fmean(values) if values else None


def _arm(line: Row, rows: list[Row], reference: list[Row], control: str, metric: str) -> Arm:
    done = _measured(rows)
    is_control = line["arm"] == control
    gaps = _values(done, "quant_gap")
    largest = max(_values(done, "artifact_bytes"), default=None)
    over = "!" if line["n_over_cap"] else ""
    percent = "" if largest is None else f"{100 * largest / ARTIFACT_CAP_BYTES:.1f}%{over}"
    step_ms = _number(_mean(done, "step_ms"), ",.1f")
    cells = {
        "arm": Cell((line["arm"],)),
        "seeds": Cell((str(len(done)) if len(done) == len(rows) else f"{len(done)}/{len(rows)}",)),
        "float": Cell((_number(_mean(done, "float_bpb"), ".4f"),)),
        "post_quant": Cell((_number(_mean(done, "post_quant_bpb"), ".4f"),)),
        "gap": Cell((_number(_mean(done, "quant_gap"), "+.4f"), f"±{statistics.stdev(gaps):.4f}" if gaps[1:] else "")),
        "delta": Cell(("control", "") if is_control else (_number(line["delta"], "+.4f"), _half_width(line))),
        "bytes": Cell((_number(largest, ",.0f"), percent)),
        "steps": Cell((_number(_mean(done, "steps"), ",.0f"), *(("", "") if step_ms == NONE else ("×", step_ms)))),
        "qat": Cell(_qat(done)),
    }
    return Arm(line["arm"], is_control, line["verdict"], cells, _sentence(line, done, reference, control, metric))


def _qat(done: list[Row]) -> tuple[str, str, str]:
    """On-step, share covered, and whether it was measured to act. `never`: asked for, but its gate did not open."""
    on_step, covered, live = (_values(done, name) for name in ("qat_on_step", "qat_coverage", "qat_is_live"))
    if not on_step and not covered:
        return (NONE, "", "")
    mark = "?" if not live else "live" if all(live) else "DEAD"
    return (
        f"{statistics.fmean(on_step):,.0f}" if on_step else "never",
        f"{min(covered):.0%}" if covered else NONE,
        mark,
    )


def _sentence(line: Row, done: list[Row], reference: list[Row], control: str, metric: str) -> str:
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
    return f"{said}. {'; '.join(caveats).rstrip('.')}." if caveats else f"{said}."


def _caveats(done: list[Row], reference: list[Row]) -> list[str]:
    """What differs from the control besides what the arm asked for."""
    if not done or not reference:
        return []
    found = []
    steps, base = _mean(done, "steps"), _mean(reference, "steps")
    if steps and base and abs(steps / base - 1) >= _STEP_TAX:
        found.append(f"{abs(steps / base - 1):.1%} {'fewer' if steps < base else 'more'} steps than the control")
    for column in _CAVEATS:
        mine, theirs = (sorted({str(value) for value in _values(rows, column)}) for rows in (done, reference))
        if mine and theirs and mine != theirs:
            found.append(f"{column} {'/'.join(mine)}, control {'/'.join(theirs)}")
    return found


def _remarks(done: list[Row]) -> list[str]:
    found = []
    if False in _values(done, "qat_is_live"):
        found.append("QAT WAS NOT LIVE: it was asked for and changed nothing")
    covered = min(_values(done, "qat_coverage"), default=1.0)
    if covered < 1:
        found.append(f"QAT covers {covered:.0%} of the quantized elements")
    return found + list(dict.fromkeys(_values(done, "notes")))


def _unfinished(rows: list[Row]) -> list[tuple[str, str, str, str]]:
    """Trials that will not bring a number by themselves, and finished ones whose number cannot be read."""
    lines = []
    for row in rows:
        if row["status"] in ("queued", "running") or _measured([row]):
            continue
        kind = f" ({row['failure_kind']})" if row["failure_kind"] else ""
        lines.append((row["arm"], str(row["seed"]), f"{row['status']}{kind}", row["reason"] or "no reason given"))
    return lines


def _pending(rows: list[Row]) -> str | None:
    waiting = {state: [row for row in rows if row["status"] == state] for state in ("running", "queued")}
    parts = [
        f"{state}: " + ", ".join(f"{row['arm']} seed {row['seed']}" for row in group)
        for state, group in waiting.items()
        if group
    ]
    return "; ".join(parts) or None


def _number(value: float | None, spec: str) -> str:
    return NONE if value is None else format(value, spec)


def _half_width(line: Row) -> str:
    return "" if line["ci_low"] is None else f"±{(line['ci_high'] - line['ci_low']) / 2:.4f}"

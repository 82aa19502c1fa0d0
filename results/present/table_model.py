"""What the table of a run says, as text, before anyone draws it: two blocks of cells per arm, footnotes, failures.

Markdown, LaTeX and the terminal draw the same cells, so they cannot disagree. Numbers that differ in meaning between
seeds are shown at their worst (artifact bytes: the largest), all others as means over the finished seeds.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from results.analysis.ablation import ablation
from results.loading.runs import current, load
from results.present.column_layout import NONE, Column, Cut, Parts
from results.schema import Row, records
from trainer.errors import InputError
from trainer.limits import ARTIFACT_CAP_BYTES, WIN_MIN_SEEDS
from trainer.records.results import HEADLINES, METRICS
from trainer.records.states import TrialState

_STEP_TAX = 0.01  # a difference in steps below this share goes unmentioned


@dataclass(frozen=True)
class Arm:
    name: str
    is_control: bool
    verdict: str | None
    sentence: str


@dataclass(frozen=True)
class Block:
    """One table: a column per key, a cell per arm; what goes first where it is too wide."""

    title: str
    columns: dict[str, Column]
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class View:
    """`footnotes`: [1] is the first; the verdicts refer to them."""

    sweep: str
    question: str | None
    control: str | None
    metric: str
    arms: list[Arm]
    blocks: list[Block]
    footnotes: list[str]
    unfinished: list[tuple[str, str, str, str]]  # arm, seed, status and kind, reason
    pending: str | None
    remarks: list[str]
    trials: pd.DataFrame = field(repr=False)
    ablation: pd.DataFrame = field(repr=False)


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
    lines = records(compared)
    by_arm: dict[str, list[Row]] = {line["arm"]: [] for line in lines}
    for row in rows:
        by_arm[row["arm"]].append(row)
    done = {arm: _measured(own_rows) for arm, own_rows in by_arm.items()}
    reference = done.get(str(chosen), [])
    notes = {line["arm"]: _notes(line, done[line["arm"]], reference) for line in lines}
    footnotes = list(dict.fromkeys(note for own_notes in notes.values() for note in own_notes))
    superseded = len(trials) - len(rows)
    if superseded:
        remarks.append(f"{superseded} trials of earlier configurations are in table.csv, but not in this table")
    return View(
        sweep=trials.attrs["sweep"],
        question=trials.attrs["question"],
        control=chosen,
        metric=metric,
        arms=[
            Arm(
                line["arm"], line["arm"] == chosen, line["verdict"], _sentence(line, notes[line["arm"]], chosen, metric)
            )
            for line in lines
        ],
        blocks=[_compared(lines, notes, footnotes, str(chosen), metric), _described(by_arm, done, lines)],
        footnotes=footnotes,
        unfinished=_unfinished(rows),
        pending=_pending(rows),
        remarks=remarks,
        trials=trials,
        ablation=compared,
    )


def _headline(rows: list[Row]) -> str:
    """The sliding bpb where every finished trial has one, else the post-quant bpb."""
    finished = [row for row in rows if row["status"] == TrialState.FINISHED]
    complete = (name for name in HEADLINES if finished and all(row[name] is not None for row in finished))
    return next(complete, HEADLINES[-1])


def _measured(rows: list[Row]) -> list[Row]:
    """Finished with a score of the artifact; an imported log may have the sliding one alone."""
    scored = [row for row in rows if any(row[name] is not None for name in HEADLINES)]
    return [row for row in scored if row["status"] == TrialState.FINISHED]


def _values(rows: list[Row], name: str) -> list[Any]:
    return [row[name] for row in rows if row[name] is not None]


def _mean(rows: list[Row], name: str) -> float | None:
    values = _values(rows, name)
    return statistics.fmean(values) if values else None


def _compared(lines: list[Row], notes: dict[str, list[str]], footnotes: list[str], control: str, metric: str) -> Block:
    """What follows from the numbers: the difference from the control and its verdict."""

    def seeds(line: Row) -> Parts:
        if line["verdict"] == "CONTROL" or not line["n_pairs"]:
            return (str(line["n"]), "")
        return (str(line["n_pairs"]), line["test"] or "")

    def verdict(line: Row) -> Parts:
        marks = " ".join(str(footnotes.index(note) + 1) for note in notes[line["arm"]])
        return (line["verdict"] or NONE, f"[{marks}]" if marks else "")

    def needed(line: Row) -> Parts:
        if line["seeds_needed"] is None:
            return (NONE,)
        return (f"{'≥' if line['ci_low'] is None else ''}{line['seeds_needed']:,}",)

    name = METRICS[metric].label.removesuffix(" bpb")
    cells: dict[str, tuple[tuple[str, ...], Callable[[Row], Parts]]] = {
        "arm": (("arm",), lambda line: (line["arm"],)),
        "seeds": (("n,", "test"), seeds),
        "mean": ((name, "bpb"), lambda line: (_number(line["mean"], ".4f"),)),
        "delta": (("Δ", "± 95 % CI"), lambda line: (_number(line["delta"], "+.4f"), _half_width(line))),
        "p_holm": (("p_holm",), lambda line: (_number(line["p_holm"], ".2g"),)),
        "verdict": (("verdict",), verdict),
        "needed": (("seeds", "needed"), needed),
    }
    return Block(
        f"{name} bpb against {control}",
        {key: Column(heading, [cell(line) for line in lines]) for key, (heading, cell) in cells.items()},
        (
            Cut("mean", f"{name} bpb"),
            Cut("seeds", "the test", slice(0, 1), ("n",)),
            Cut("needed", "seeds needed"),
            Cut("p_holm", "p_holm"),
        ),
    )


def _described(by_arm: dict[str, list[Row]], done: dict[str, list[Row]], lines: list[Row]) -> Block:
    """What was measured of every arm."""

    def seeds(arm: str) -> Parts:
        return (f"{len(done[arm])}" if len(done[arm]) == len(by_arm[arm]) else f"{len(done[arm])}/{len(by_arm[arm])}",)

    def gap(arm: str) -> Parts:
        gaps = _values(done[arm], "quant_gap")
        return (_number(_mean(done[arm], "quant_gap"), "+.4f"), f"±{statistics.stdev(gaps):.4f}" if gaps[1:] else "")

    def largest(arm: str) -> Parts:
        num_bytes = max(_values(done[arm], "artifact_bytes"), default=None)
        over = "!" if is_over[arm] else ""
        return (
            _number(num_bytes, ",.0f"),
            "" if num_bytes is None else f"{100 * num_bytes / ARTIFACT_CAP_BYTES:.1f}%{over}",
        )

    def steps(arm: str) -> Parts:
        step_ms = _number(_mean(done[arm], "step_ms"), ",.1f")
        return (_number(_mean(done[arm], "steps"), ",.0f"), *(("", "") if step_ms == NONE else ("×", step_ms)))

    is_over = {line["arm"]: bool(line["n_over_cap"]) for line in lines}
    cells: dict[str, tuple[tuple[str, ...], Callable[[str], Parts]]] = {
        "arm": (("arm",), lambda arm: (arm,)),
        "seeds": (("n",), seeds),
        "float": (("float",), lambda arm: (_number(_mean(done[arm], "float_bpb"), ".4f"),)),
        "post_quant": (("post-", "quant"), lambda arm: (_number(_mean(done[arm], "post_quant_bpb"), ".4f"),)),
        "gap": (("gap", "± std"), gap),
        "bytes": (("bytes,", "% of cap"), largest),
        "steps": (("steps × ms",), steps),
        "qat": (("QAT on at,", "covers"), lambda arm: _qat(done[arm])),
    }
    columns = {key: Column(heading, [cell(arm) for arm in by_arm]) for key, (heading, cell) in cells.items()}
    if not any(covers for _, covers, _ in columns["qat"].cells):
        del columns["qat"]
    return Block(
        "measured: bpb, quantization gap, largest artifact",
        columns,
        (
            Cut("qat", "what QAT covers", slice(0, 1), ("QAT", "on at")),
            Cut("steps", "steps and step time"),
            Cut("float", "float bpb"),
            Cut("bytes", "artifact bytes", slice(1, None), ("% of", "cap")),
            Cut("qat", "QAT's first step"),
            Cut("bytes", "% of cap"),
        ),
    )


def _qat(done: list[Row]) -> Parts:
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


def _notes(line: Row, done: list[Row], reference: list[Row]) -> list[str]:
    """Everything about an arm that could fool a reader, and why it is not compared."""
    found = line["reason"].split("; ") if line["reason"] else []
    steps, base = _mean(done, "steps"), _mean(reference, "steps")
    if steps and base and abs(steps / base - 1) >= _STEP_TAX:
        found.append(f"{abs(steps / base - 1):.1%} {'fewer' if steps < base else 'more'} steps than the control")
    if False in _values(done, "qat_is_live"):
        found.append("QAT WAS NOT LIVE: it was asked for and changed nothing")
    covered = min(_values(done, "qat_coverage"), default=1.0)
    if covered < 1:
        found.append(f"QAT covers {covered:.0%} of the quantized elements")
    return list(dict.fromkeys([*found, *_values(done, "notes")]))


def _sentence(line: Row, notes: list[str], control: str | None, metric: str) -> str:
    """What can be said of this arm: number, difference, verdict, and its notes."""
    name = METRICS[metric].label.removesuffix(" bpb")
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
    return f"{said}. {'; '.join(notes).rstrip('.')}." if notes else f"{said}."


def _unfinished(rows: list[Row]) -> list[tuple[str, str, str, str]]:
    """Trials that will not bring a number by themselves, and finished ones whose number cannot be read."""
    lines = []
    for row in rows:
        if row["status"] in (TrialState.QUEUED, TrialState.RUNNING) or _measured([row]):
            continue
        kind = f" ({row['failure_kind']})" if row["failure_kind"] else ""
        lines.append((row["arm"], str(row["seed"]), f"{row['status']}{kind}", row["reason"] or "no reason given"))
    return lines


def _pending(rows: list[Row]) -> str | None:
    waiting = {
        state: [row for row in rows if row["status"] == state] for state in (TrialState.RUNNING, TrialState.QUEUED)
    }
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

"""The content of a run's table as text: two tables of arms, footnotes, trials without a result.

Markdown, LaTeX, the terminal and the report show the same cells. Artifact bytes are the largest over the seeds, all other
numbers are means over the finished seeds.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from results.analysis.ablation import ablation
from results.analysis.confirmation import notes_on_choice
from results.analysis.headline import fallback_note, headline
from results.loading.runs import current
from results.present.chosen_columns import check_metric, chosen_columns, sorted_by
from results.present.column_layout import NONE, HideStep, Parts, TextColumn, half_width, number
from results.present.several_runs import Runs, load_labelled
from results.schema import Row, records
from trainer.errors import InputError
from trainer.limits import ARTIFACT_CAP_BYTES, WIN_MIN_SEEDS, WIN_NATS
from trainer.records.results import HEADLINES, METRICS
from trainer.records.states import TrialState


@dataclass(frozen=True)
class ArmSummary:
    name: str
    is_control: bool
    verdict: str | None
    sentence: str


@dataclass(frozen=True)
class ArmTable:
    """One table: heading -> column, with a cell per arm. `hide_steps`: what to hide first if the table is too wide."""

    title: str
    columns: dict[str, TextColumn]
    hide_steps: tuple[HideStep, ...]


@dataclass(frozen=True)
class LostTrial:
    """A trial that ended without a readable result. `outcome`: its status and kind of failure."""

    trial_id: str
    arm: str
    seed: int
    status: TrialState
    outcome: str
    reason: str


@dataclass(frozen=True)
class RunTable:
    """The table of a run. Arms have their labels everywhere, except in `stored`.

    tables: the comparison with the control, then the measurements. footnotes: verdicts refer to them from [1] on. trials,
    stored: a row per trial; stored has the arms' own names, for files.
    """

    sweep: str
    question: str | None
    control: str | None
    metric: str
    arms: list[ArmSummary]
    tables: list[ArmTable]
    footnotes: list[str]
    lost: list[LostTrial]
    pending: str | None
    remarks: list[str]
    trials: pd.DataFrame = field(repr=False)
    stored: pd.DataFrame = field(repr=False)
    ablation: pd.DataFrame = field(repr=False)


def build_table(
    run: Runs,
    control: str | None = None,
    *,
    metric: str | None = None,
    sort: str | None = None,
    columns: Sequence[str] = (),
) -> RunTable:
    """Load a run and return the content of its table.

    Args:
        run: the run folder, or several to show side by side.
        control: the arm to compare with; None: that of sweep.yaml, else the first arm.
        metric: to compare by; None: the best one that all finished trials have.
        sort: a column to order the arms by, with `-` before it from high to low; None: the order of the sweep.
        columns: make one table of these columns of `results.ablation` and `results.schema`, instead of the usual two.
    Raises:
        InputError: no run there, or `control`, `metric`, `sort` or `columns` names nothing.
    """
    stored, trials, control = load_labelled(run, control)
    remarks = [str(problem) for problem in trials.attrs["problems"]]
    remarks += [f"data: {warning}" for warning in trials.attrs.get("data_warnings", [])]
    arms = list(dict.fromkeys(trials["arm"]))
    own = trials.attrs["control"]
    if control is not None and control not in arms:
        raise InputError("--control", "arm", control, f"not among the arms: {', '.join(arms) or 'there are none'}")
    if control is None and own is not None and own not in arms:
        remarks.append(f"the control {own} has no trial; differences are from the first arm")
    control = control or (own if own in arms else None) or (arms[0] if arms else None)
    rows = records(current(trials))
    check_metric(metric, rows)
    fallback = fallback_note(rows, headline(rows)) if metric is None else None
    metric = metric or headline(rows)
    remarks += [fallback] if fallback else []
    compared = ablation(trials, control, metric, on_mismatch="mark") if arms else pd.DataFrame()
    lines = records(compared)
    by_arm: dict[str, list[Row]] = {line["arm"]: [] for line in lines}
    for row in rows:
        by_arm[row["arm"]].append(row)
    done = {arm: [row for row in own_rows if _has_result(row)] for arm, own_rows in by_arm.items()}
    if sort and lines:
        lines = sorted_by(sort, lines, done, compared)
        compared = compared.set_index("arm").loc[[line["arm"] for line in lines]].reset_index()
        by_arm = {line["arm"]: by_arm[line["arm"]] for line in lines}
    notes = {line["arm"]: line["reason"].split("; ") if line["reason"] else [] for line in lines}
    broken, choice = notes_on_choice(trials.attrs["runs"])
    for arm, note in broken.items():
        notes.get(arm, []).append(note)
    footnotes = list(dict.fromkeys(note for own_notes in notes.values() for note in own_notes))
    remarks += choice
    superseded = len(trials) - len(rows)
    if superseded:
        kind = "trial of an earlier configuration is" if superseded == 1 else "trials of earlier configurations are"
        remarks.append(f"{superseded} {kind} in table.csv, but not in this table")
    return RunTable(
        sweep=trials.attrs["sweep"],
        question=trials.attrs["question"],
        control=control,
        metric=metric,
        arms=[
            ArmSummary(name, name == control, line["verdict"], _sentence(line, notes[name], control, metric))
            for name, line in zip(by_arm, lines, strict=True)
        ],
        tables=[ArmTable(f"compared with {control}", chosen_columns(columns, metric, lines, done, compared), ())]
        if columns and lines
        else [_comparison(lines, notes, footnotes, str(control), metric), _measurements(by_arm, done, lines)],
        footnotes=footnotes,
        lost=_lost(rows),
        pending=_pending(rows),
        remarks=remarks,
        trials=trials,
        stored=stored,
        ablation=compared,
    )


def _has_result(row: Row) -> bool:
    """Whether the trial finished with a score; an imported log may have only one of the scores."""
    return row["status"] == TrialState.FINISHED and any(row[name] is not None for name in HEADLINES)


def _values(rows: list[Row], name: str) -> list[Any]:
    return [row[name] for row in rows if row[name] is not None]


def _mean(rows: list[Row], name: str) -> float | None:
    values = _values(rows, name)
    return statistics.fmean(values) if values else None


def _table(title: str, rows: list[dict[str, Parts]], *hide_steps: HideStep) -> ArmTable:
    """Return the table of these rows: heading -> cell."""
    headings = list(rows[0]) if rows else []
    return ArmTable(title, {key: TextColumn(key, [row[key] for row in rows]) for key in headings}, hide_steps)


def _comparison(
    lines: list[Row], notes: dict[str, list[str]], footnotes: list[str], control: str, metric: str
) -> ArmTable:
    """Return the table of differences from the control and their verdicts."""
    title = METRICS[metric].label or metric
    heading = title.replace(" bpb", "\nbpb")
    spec = METRICS[metric].spec.lstrip("+") or ",.4g"
    has_permutation = any(line["p_permutation"] is not None for line in lines)
    rows: list[dict[str, Parts]] = []
    for line in lines:
        is_compared = line["verdict"] != "CONTROL" and line["n_pairs"]
        marks = " ".join(str(footnotes.index(note) + 1) for note in notes[line["arm"]])
        at_least = "≥" if line["ci_low"] is None and line["seeds_needed"] is not None else ""
        rows.append(
            {
                "arm": (line["arm"],),
                "seeds": (_num_compared(line), line["test"] or "") if is_compared else (str(line["n"]), ""),
                heading: (number(line["mean"], spec),),
                "Δ\n± 95 % CI": (number(line["delta"], f"+{spec}"), half_width(line["ci_low"], line["ci_high"], spec)),
                "p (Holm)": (number(line["p_holm"], ".2g"),),
                **({"p (perm.)": (number(line["p_permutation"], ".2g"),)} if has_permutation else {}),
                "verdict": (line["verdict"] or NONE, f"[{marks}]" if marks else ""),
                "seeds\nneeded": (at_least + number(line["seeds_needed"], ","),),
            }
        )
    return _table(
        f"{title} against {control}",
        rows,
        HideStep("seeds\nneeded", "seeds needed"),
        HideStep("seeds", "test", slice(0, 1), "seeds"),
        HideStep("p (perm.)", "p of the permutation test"),
        HideStep("p (Holm)", "p (Holm)"),
        HideStep(heading, title),
    )


def _num_compared(line: Row) -> str:
    """Return how many seeds the difference is over and, if the mean is over more of them, over how many that is."""
    is_part = line["test"] != "Welch" and line["n_pairs"] < line["n"]  # Welch's test uses all seeds of both sides
    return str(line["n_pairs"]) + (f" of {line['n']}" if is_part else "")


def _measurements(by_arm: dict[str, list[Row]], done: dict[str, list[Row]], lines: list[Row]) -> ArmTable:
    """Return the table of what was measured for every arm."""
    has_qat = any(_values(own, "qat_on_step") or _values(own, "qat_coverage") for own in done.values())
    rows: list[dict[str, Parts]] = []
    for line in lines:
        own, num_trials = done[line["arm"]], len(by_arm[line["arm"]])
        gaps, num_bytes, step_ms = _values(own, "quant_gap"), _values(own, "artifact_bytes"), _mean(own, "step_ms")
        over = "!" if line["n_over_cap"] else ""
        share = f"{100 * max(num_bytes) / ARTIFACT_CAP_BYTES:.1f}%{over}" if num_bytes else ""
        time = ("", "") if step_ms is None else ("×", f"{step_ms:,.1f}")
        spread = f"±{statistics.stdev(gaps):.4f}" if gaps[1:] else ""
        cells: dict[str, Parts] = {
            "arm": (line["arm"],),
            "seeds": (str(num_trials) if len(own) == num_trials else f"{len(own)}/{num_trials}",),
            "float": (number(_mean(own, "float_bpb"), ".4f"),),
            "post-\nquant": (number(_mean(own, "post_quant_bpb"), ".4f"),),
            "gap\n± std": (number(_mean(own, "quant_gap"), "+.4f"), spread),
            "bytes,\n% of cap": (number(max(num_bytes, default=None), ",.0f"), share),
            "steps × ms": (number(_mean(own, "steps"), ",.0f"), *time),
        }
        rows.append(cells | {"QAT start,\ncoverage": _qat(own)} if has_qat else cells)
    return _table(
        "measured: bpb, quantization gap, largest artifact",
        rows,
        HideStep("QAT start,\ncoverage", "QAT coverage", slice(0, 1), "QAT\nstart"),
        HideStep("steps × ms", "steps and step time"),
        HideStep("float", "float bpb"),
        HideStep("bytes,\n% of cap", "artifact bytes", slice(1, None), "% of\ncap"),
        HideStep("QAT start,\ncoverage", "QAT start"),
        HideStep("bytes,\n% of cap", "% of cap"),
    )


def _qat(done: list[Row]) -> Parts:
    """Return start step, share of elements covered, and whether QAT was live. `never`: enabled, but it never started."""
    start, covered, live = (_values(done, name) for name in ("qat_on_step", "qat_coverage", "qat_is_live"))
    if not start and not covered:
        return (NONE, "", "")
    return (
        f"{statistics.fmean(start):,.0f}" if start else "never",
        f"{min(covered):.0%}" if covered else "unknown",
        "" if not live else "live" if all(live) else "DEAD",
    )


def _sentence(line: Row, notes: list[str], control: str | None, metric: str) -> str:
    """Summarize one arm: mean, difference, verdict, footnotes."""
    label, spec = METRICS[metric].label or metric, METRICS[metric].spec.lstrip("+") or ",.4g"
    mean = f"no {label} yet" if line["mean"] is None else f"{label.removesuffix(' bpb')} {line['mean']:{spec}}"
    text = f"{line['arm']}: {mean}"
    if line["verdict"] == "CONTROL":
        text += ", the control"
    elif line["delta"] is not None:
        interval = "" if line["ci_low"] is None else f" [{line['ci_low']:+{spec}}, {line['ci_high']:+{spec}}]"
        p = "" if line["p_holm"] is None else f", p (Holm) {line['p_holm']:.2g}"
        text += f" ({line['delta']:+{spec}}{interval} against {control}{p})"
    if line["verdict"] not in (None, "CONTROL"):
        text += f": {line['verdict']}"
    if line["verdict"] == "TOO FEW SEEDS":
        text += f" ({line['n_pairs']} of {WIN_MIN_SEEDS})"
    elif line["verdict"] == "INCOMPLETE" and line["n_failed"]:
        text += f" ({line['n']} of {line['n'] + line['n_failed']} seeds have a result)"
    elif line["verdict"] == "SMALL":
        text += f" ({'better' if line['delta'] < 0 else 'worse'} by less than {WIN_NATS} nats per token)"
    return f"{text}. {'; '.join(notes).rstrip('.')}." if notes else f"{text}."


def _lost(rows: list[Row]) -> list[LostTrial]:
    lost = []
    for row in rows:
        status = TrialState(row["status"])
        if status.is_terminal and not _has_result(row):
            outcome = f"{status} ({row['failure_kind']})" if row["failure_kind"] else str(status)
            reason = row["reason"] or "no reason given"
            lost.append(LostTrial(row["trial_id"], row["arm"], row["seed"], status, outcome, reason))
    return lost


def _pending(rows: list[Row]) -> str | None:
    states = (TrialState.RUNNING, TrialState.QUEUED)
    names = {state: [f"{row['arm']} seed {row['seed']}" for row in rows if row["status"] == state] for state in states}
    return "; ".join(f"{state}: {', '.join(own)}" for state, own in names.items() if own) or None

"""Facts of a report: the verdict as a sentence, lost trials with the end of their logs, cost, provenance."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from results.loading.study import StudySummary
from results.present.column_layout import number
from results.present.table_model import LostTrial, RunTable
from results.schema import Row, records
from trainer.limits import WIN_MIN_SEEDS
from trainer.records.files import read_json
from trainer.records.layout import RunLayout
from trainer.records.ledger import read_ledger
from trainer.records.logs import read_tail, without_torchrun_report
from trainer.records.states import TrialState
from trainer.records.text import count_of

_TAIL_LINES, _LINE_CHARS = 15, 300
_MOST_TAILS = 40
_GROUPS = {
    "LOSS": "worse",
    "NOISE": "too close to call",
    "INFEASIBLE": "over the cap",
    "NOT COMPARABLE": "not comparable",
}


@dataclass(frozen=True)
class TrialLog:
    """The log of a lost trial. path: relative to the run folder, None without a log; tail: its last lines."""

    trial: LostTrial
    path: str | None
    tail: list[str]


def search_sentence(study: StudySummary | None) -> str:
    """Return the best proposal of a search and how many meet its constraints; empty if there was no search."""
    if study is None:
        return ""
    num_feasible = sum(trial.is_feasible for trial in study.trials)
    feasible = f"; {num_feasible} of {count_of(len(study.trials), 'proposal')} met {' and '.join(study.constraints)}"
    feasible = f"{feasible if study.constraints else ''}."
    best = next((trial for trial in study.trials if trial.name in study.best[:1]), None)
    if best is None:
        return f"No best proposal{feasible}"
    values = ", ".join(f"{k} {v:.4f}" if v < 1000 else f"{k} {v:,.0f}" for k, v in best.values.items())
    front = f", one of {len(study.best)} non-dominated proposals" if len(study.best) > 1 else ""
    return f"Best proposal: {best.name} ({values}){front}{feasible}"


def verdict_sentence(table: RunTable) -> str:
    """Return what the run shows: the winner, or why there is none, and how many other arms had which result."""
    lines = records(table.ablation)
    if not lines:
        return "No trials yet."
    others = [line for line in lines if line["verdict"] != "CONTROL"]
    if not others:
        return f"{table.control} is the only arm: there is nothing to compare it with."
    known = [line for line in others if line["delta"] is not None]
    if not known:
        why = "the control has no result" if lines[0]["mean"] is None else "no other arm has a result to compare"
        return f"No comparison possible: {why}."
    wins = sorted((line for line in known if line["verdict"] == "WIN"), key=lambda line: line["delta"])
    if wins:
        best = wins[0]
        text = f"{best['arm']} beats {table.control} by {-best['delta']:.4f} bpb (p = {best['p_holm']:.2g} after Holm)"
        text += f", and so {'does' if len(wins) == 2 else 'do'} {_listed(wins[1:])}" if wins[1:] else ""
    elif any(line["verdict"] in ("LOSS", "NOISE") for line in known):
        text = f"No arm beats {table.control}"
    else:
        best = min([line for line in known if line["verdict"] != "INFEASIBLE"] or known, key=lambda line: line["delta"])
        lead = f"{abs(best['delta']):.4f} bpb {'ahead of' if best['delta'] < 0 else 'behind'} {table.control}"
        result = f"{best['arm']} is {lead} so far" if best["delta"] else f"none differs from {table.control} so far"
        text = f"Inconclusive: no arm has {WIN_MIN_SEEDS} seeds to compare; {result}"
    return f"{text}{_others(others)}."


def _listed(lines: list[Row]) -> str:
    names = [str(line["arm"]) for line in lines[:3]] + ([f"{len(lines) - 3} more"] if len(lines) > 3 else [])
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _others(others: list[Row]) -> str:
    counts = Counter(
        _GROUPS.get(line["verdict"])
        if line["delta"] is not None or line["verdict"] == "NOT COMPARABLE"
        else "without a result"
        for line in others
    )
    parts = [f"{count_of(n, 'arm')} {'is' if n == 1 else 'are'} {group}" for group, n in counts.items() if group]
    return f"; {', '.join(parts)}" if parts else ""


def trial_logs(lost: list[LostTrial], layout: RunLayout) -> list[TrialLog]:
    """Find the logs of lost trials and read the last lines of the first ones."""
    found: list[TrialLog] = []
    for trial in lost:
        log = layout.trial(trial.trial_id).log
        path = str(log.relative_to(layout.root)) if log.is_file() else None
        found.append(TrialLog(trial, path, log_tail(log) if path and len(found) < _MOST_TAILS else []))
    return found


def log_tail(log: Path) -> list[str]:
    """Return the last lines that the trainer wrote, without torchrun's report of its dead ranks."""
    lines = without_torchrun_report(read_tail(log)).splitlines()
    return [line[:_LINE_CHARS] for line in lines if line.strip()][-_TAIL_LINES:]


def costs(trials: pd.DataFrame) -> list[list[str]]:
    """Return a row for each state of trials and one for all: number, GPU-hours, US dollars, wall hours."""
    groups = [*trials.groupby("status", sort=False), ("all", trials)] if len(trials) else []
    columns = {"gpu_held_s": 3600, "cost_usd": 1, "wall_s": 3600}
    rows = []
    for status, own in groups:
        sums = (own[name].sum() / unit if own[name].notna().any() else None for name, unit in columns.items())
        rows.append([str(status), str(len(own)), *(number(value, ",.2f") for value in sums)])
    return rows


def provenance(trials: pd.DataFrame, layout: RunLayout) -> list[tuple[str, str]]:
    """Return name and value of what is known about commit, versions, command, machine and data."""
    launch = read_json(layout.provenance)
    entries, _ = read_ledger(layout.ledger)
    rows = [row for row in records(trials) if row["status"] == TrialState.FINISHED]
    ends = [time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(entry.at)) for entry in (*entries[:1], *entries[-1:])]

    def seen(*columns: str) -> str:
        values = (" ".join(str(row[name]) for name in columns if row[name] is not None) for row in rows)
        return ", ".join(dict.fromkeys(filter(None, values)))

    dirty = {True: ", with uncommitted changes", None: ""}.get(launch.get("git_is_dirty"), ", clean")
    sha = launch.get("sweep_sha256")
    pairs = [
        ("command", launch.get("command")),
        ("commit at launch", f"{launch['git_sha']}{dirty}" if launch.get("git_sha") else None),
        ("commits of the trials", seen("git_sha")),
        ("sweep file", " ".join(filter(None, [launch.get("sweep_file"), f"(sha256 {sha[:12]})" if sha else None]))),
        ("preset", launch.get("preset")),
        ("command line overrides", _pairs(launch.get("set"))),
        ("host", " · ".join(filter(None, [launch.get("host"), launch.get("platform")]))),
        ("resources per job", _pairs(launch.get("machine"))),
        ("hardware of the trials", seen("hardware")),
        ("nodes", ", ".join(dict.fromkeys(row["node"] for row in records(trials) if row["node"]))),
        ("versions", _pairs({"python": launch.get("python"), **(launch.get("versions") or {})})),
        ("torch of the trials", seen("torch_version")),
        ("data", seen("data_sha")),
        ("tokenizer", seen("tokenizer_sha")),
        ("evaluation", _evaluation(rows)),
        ("first and last ledger entry", " to ".join(ends)),
        ("number of launches", str(1 + len(launch.get("earlier") or [])) if launch else None),
    ]
    return [(name, str(value)) for name, value in pairs if value]


def _evaluation(rows: list[Row]) -> str:
    texts = (
        f"{row['scored_tokens']:,} tokens of {row['scored_bytes']:,} bytes"
        + (f", context {row['eval_seq_len']:,}" if row["eval_seq_len"] else "")
        + (f", stride {row['eval_stride']:,}" if row["eval_stride"] else "")
        for row in rows
        if row["scored_tokens"] is not None and row["scored_bytes"] is not None
    )
    return "; ".join(dict.fromkeys(texts))


def _pairs(values: dict[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (values or {}).items() if value is not None)

"""Facts of a report: lost trials with the end of their logs, cost, provenance."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from results.present.column_layout import number
from results.present.table_model import LostTrial
from results.schema import Row, records
from trainer.records.files import read_json
from trainer.records.layout import RunLayout
from trainer.records.ledger import read_ledger
from trainer.records.logs import read_tail, without_torchrun_report
from trainer.records.states import TrialState

_TAIL_LINES, _LINE_CHARS = 15, 300
_MOST_TAILS = 40


@dataclass(frozen=True)
class TrialLog:
    """The log of a lost trial. path: relative to the run folder, None without a log; tail: its last lines."""

    trial: LostTrial
    path: str | None
    tail: list[str]


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


def provenance_line(trials: pd.DataFrame, layout: RunLayout) -> str:
    """Return when, where and with which code the run was made, for the top of the report."""
    launch = read_json(layout.provenance)
    entries, _ = read_ledger(layout.ledger)
    rows = [row for row in records(trials) if row["status"] == TrialState.FINISHED]
    hardware = list(dict.fromkeys(str(row["hardware"]) for row in rows if row["hardware"]))
    code = f"commit {launch['git_sha'][:10]}" if launch.get("git_sha") else None
    dirty = " with uncommitted changes" if launch.get("git_is_dirty") else ""
    parts = [
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(entries[-1].at)) if entries else None,
        f"preset {launch['preset']}" if launch.get("preset") else None,
        ", ".join(hardware[:2]) + (f" and {len(hardware) - 2} more" if hardware[2:] else ""),
        code and code + dirty,
    ]
    return " · ".join(filter(None, parts))


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

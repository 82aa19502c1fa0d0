"""What a report says in words: the verdict in one sentence, what failed and its log's end, cost, where it was run."""

import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from results.loading.runs import current
from results.present.table_model import View
from results.schema import Row, records
from trainer.limits import WIN_MIN_SEEDS
from trainer.records.files import read_json
from trainer.records.layout import RunLayout
from trainer.records.ledger import read_ledger
from trainer.records.results import HEADLINES
from trainer.records.states import TrialState

_WITHOUT_NUMBER = tuple(state for state in TrialState if state.is_failed)
_TAIL_LINES, _TAIL_BYTES, _LINE_CHARS = 15, 20_000, 300
_MOST_TAILS = 40
# torchrun's own story of a rank that died begins with a line like this; the rank's last words stand before it.
_LAUNCHER = re.compile(r"^[EW]\d{4} .*torch/distributed/")


@dataclass(frozen=True)
class Lost:
    """A trial without a number. `log`: its path within the run folder; `tail`: the end of what the trainer said there."""

    arm: str
    seed: int
    status: str
    kind: str | None
    reason: str
    log: str | None
    tail: list[str]


@dataclass(frozen=True)
class Cost:
    """Of the trials in one state; None = not known. wall_hours: of trials with a result, shared training in shares."""

    status: str
    num_trials: int
    gpu_hours: float | None
    usd: float | None
    wall_hours: float | None


def search_sentence(study: Mapping[str, Any]) -> str:
    """What a search has found within its constraints, from `study.json`; nothing where there was no search."""
    if not study:
        return ""
    trials = {trial["name"]: trial for trial in study["trials"]}
    num_feasible = sum(trial["is_feasible"] for trial in trials.values())
    kept = f"{num_feasible} of {len(trials)} proposals keep {' and '.join(study['constraints'])}"
    if not study["best"]:
        return f"The search has no best: {kept}."
    best = trials[study["best"][0]]
    values = ", ".join(
        f"{name} {value:.4f}" if value < 1000 else f"{name} {value:,.0f}" for name, value in best["values"].items()
    )
    others = len(study["best"]) - 1
    front = f", one of {others + 1} that none beats" if others else ""
    return f"The search's best is {best['name']} ({values}){front}; {kept}."


def verdict_sentence(view: View) -> str:
    """What the run says about its question, as far as it says anything."""
    lines = records(view.ablation)
    if not lines:
        return "No trials yet."
    others = [line for line in lines if line["verdict"] != "CONTROL"]
    if not others:
        return f"{view.control} is the only arm: there is nothing to compare it with."
    known = [line for line in others if line["delta"] is not None]
    if not known:
        why = "the control has no number" if lines[0]["mean"] is None else "no other arm has a number to compare"
        return f"Nothing can be said: {why}."
    wins = sorted((line for line in known if line["verdict"] == "WIN"), key=lambda line: line["delta"])
    if wins:
        more = f", and so {'does' if len(wins) == 2 else 'do'} {_listed(wins[1:])}" if wins[1:] else ""
        said = f"{wins[0]['arm']} beats {view.control} by {-wins[0]['delta']:.4f} bpb (p_holm {wins[0]['p_holm']:.2g}){more}"
    elif any(line["verdict"] in ("LOSS", "NOISE") for line in known):
        said = f"No arm beats {view.control}"
    else:
        feasible = [line for line in known if line["verdict"] != "INFEASIBLE"] or known
        best = min(feasible, key=lambda line: line["delta"])
        lead = f"{abs(best['delta']):.4f} bpb {'ahead of' if best['delta'] < 0 else 'behind'} {view.control}"
        said = f"Nothing is settled: no arm has {WIN_MIN_SEEDS} seeds to compare; {best['arm']} is {lead} so far"
        if best["delta"] == 0:
            said = (
                f"Nothing is settled: no arm has {WIN_MIN_SEEDS} seeds to compare, and none differs from {view.control}"
            )
    return f"{said}{_others(others)}."


def _listed(lines: list[Row]) -> str:
    names = [str(line["arm"]) for line in lines[:3]]
    more = [f"{len(lines) - 3} more"] if len(lines) > 3 else []
    names += more
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _others(others: list[Row]) -> str:
    words = {
        "LOSS": "worse",
        "NOISE": "too close to call",
        "INFEASIBLE": "over the cap",
        "NOT COMPARABLE": "not comparable",
    }
    counts = Counter(
        words.get(line["verdict"])
        if line["delta"] is not None or line["verdict"] == "NOT COMPARABLE"
        else "without a number"
        for line in others
    )
    parts = [f"{count} {'is' if count == 1 else 'are'} {word}" for word, count in counts.items() if word]
    return f"; {', '.join(parts)}" if parts else ""


def lost_trials(trials: pd.DataFrame, root: Path) -> list[Lost]:
    """The current trials that ended without a number, in the table's order, with the end of their logs."""
    found: list[Lost] = []
    for row in records(current(trials)):
        is_unread = row["status"] == TrialState.FINISHED and all(row[name] is None for name in HEADLINES)
        if row["status"] not in _WITHOUT_NUMBER and not is_unread:
            continue
        log = RunLayout(root).trial(row["trial_id"]).log
        has_log = log.is_file()
        tail = log_tail(log) if has_log and len(found) < _MOST_TAILS else []
        path = str(log.relative_to(root)) if has_log else None
        why = row["reason"] or "no reason given"
        found.append(Lost(row["arm"], row["seed"], row["status"], row["failure_kind"], why, path, tail))
    return found


def log_tail(log: Path) -> list[str]:
    """The last lines that the trainer itself wrote: torchrun's report of the death of its ranks is left out."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    own = lines[: next((i for i, line in enumerate(lines) if _LAUNCHER.match(line)), len(lines))]
    said = [line[:_LINE_CHARS] for line in own or lines if line.strip()]
    return said[-_TAIL_LINES:]


def costs(trials: pd.DataFrame) -> list[Cost]:
    """What each state of trials has cost, superseded trials included, and `all` as the last line."""
    rows = records(trials)
    states = [*dict.fromkeys(row["status"] for row in rows), "all"] if rows else []
    found: list[Cost] = []
    for state in states:
        own = [row for row in rows if state in ("all", row["status"])]
        held = [row["gpu_held_s"] for row in own if row["gpu_held_s"] is not None]
        paid = [row["cost_usd"] for row in own if row["cost_usd"] is not None]
        wall = [row["wall_s"] for row in own if row["wall_s"] is not None]
        hours = [sum(seconds) / 3600 if seconds else None for seconds in (held, wall)]
        found.append(Cost(state, len(own), hours[0], sum(paid) if paid else None, hours[1]))
    return found


def provenance(trials: pd.DataFrame, root: Path) -> list[tuple[str, str]]:
    """Commit, versions, command, machine, data: name and value of all that is known."""
    layout = RunLayout(root)
    launch = read_json(layout.provenance)
    entries, _ = read_ledger(layout.ledger)
    rows = [row for row in records(trials) if row["status"] == TrialState.FINISHED]

    def seen(*columns: str) -> str:
        values = (" ".join(str(row[name]) for name in columns if row[name] is not None) for row in rows)
        return ", ".join(dict.fromkeys(filter(None, values)))

    dirty = {True: ", with uncommitted changes", None: ""}.get(launch.get("git_is_dirty"), ", clean")
    versions = launch.get("versions") or {}
    machine = launch.get("machine") or {}
    pairs = [
        ("command", launch.get("command")),
        ("commit of the launch", f"{launch['git_sha']}{dirty}" if launch.get("git_sha") else None),
        ("commits of the trials", seen("git_sha")),
        ("sweep file", " ".join(filter(None, [launch.get("sweep_file"), _hash(launch.get("sweep_sha256"))]))),
        ("preset", launch.get("preset")),
        ("changed on the command line", _pairs(launch.get("set") or {})),
        ("host", " · ".join(filter(None, [launch.get("host"), launch.get("platform")]))),
        ("machine per job", _pairs(machine)),
        ("hardware of the trials", seen("hardware")),
        ("nodes", ", ".join(dict.fromkeys(row["node"] for row in records(trials) if row["node"]))),
        ("versions", _pairs({"python": launch.get("python"), **versions}) if launch else None),
        ("torch of the trials", seen("torch_version")),
        ("data", seen("data_sha")),
        ("tokenizer", seen("tokenizer_sha")),
        ("evaluation", _evaluation(rows)),
        ("first and last entry of the ledger", f"{_utc(entries[0].at)} to {_utc(entries[-1].at)}" if entries else None),
        ("launches", str(1 + len(launch.get("earlier") or [])) if launch else None),
    ]
    return [(name, str(value)) for name, value in pairs if value]


def _evaluation(rows: list[Row]) -> str:
    return "; ".join(
        dict.fromkeys(
            f"{row['scored_tokens']:,} tokens of {row['scored_bytes']:,} bytes"
            + (f", context {row['eval_seq_len']:,}" if row["eval_seq_len"] else "")
            + (f", stride {row['eval_stride']:,}" if row["eval_stride"] else "")
            for row in rows
            if row["scored_tokens"] is not None and row["scored_bytes"] is not None
        )
    )


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _hash(sha: str | None) -> str | None:
    return f"(sha256 {sha[:12]})" if sha else None


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))

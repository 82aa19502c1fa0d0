"""The challenge's rules, checked on a submission: what was measured, what is allowed, and whether that will do.

FAIL: it would be turned away. WARN: it is no record, or nobody could tell. Sources of the limits: `trainer/limits.py`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from results.analysis.ablation import mismatch
from results.importers.log import PUBLISHED_SPLIT_BYTES
from results.schema import Row
from results.submission.gather import Submission, changes
from trainer.limits import (
    ARTIFACT_CAP_BYTES,
    EVAL_CAP_S,
    TRAIN_CAP_S,
    WIN_MIN_SEEDS,
    WIN_NATS,
    WIN_P_VALUE,
)
from trainer.run.bundle import code_sha

Status = Literal["PASS", "WARN", "FAIL"]
_RECORD_HARDWARE = re.compile(r"8 x .*\bH100\b.*")


@dataclass(frozen=True)
class Rule:
    name: str
    status: Status
    measured: str
    limit: str
    note: str = ""


def check(submission: Submission) -> list[Rule]:
    """Every rule, the hard ones first."""
    hard = (_results, _configuration, _evaluation, _bytes, _training_clock, _evaluation_time, _techniques, _logs)
    soft = (_seeds, _improvement, _p_value, _hardware, _split, _code)
    return [rule(submission) for rule in (*hard, *soft)]


def failed(rules: Sequence[Rule]) -> list[Rule]:
    return [rule for rule in rules if rule.status == "FAIL"]


def is_record(rules: Sequence[Rule]) -> bool:
    """Whether nothing speaks against the track of the records."""
    return all(rule.status == "PASS" for rule in rules)


def _hard(is_kept: bool) -> Status:
    return "PASS" if is_kept else "FAIL"


def _soft(is_kept: bool) -> Status:
    return "PASS" if is_kept else "WARN"


def _results(s: Submission) -> Rule:
    without = [f"seed {row['seed']} {row['status']}" + _in_brackets(row["failure_kind"]) for row in s.missing]
    total = len(s.rows) + len(s.missing)
    return Rule("results", _hard(not s.missing), f"{len(s.rows)} of {total} seeds", "every seed", ", ".join(without))


def _configuration(s: Submission) -> Rule:
    odd = [seed for seed, config in s.configs.items() if changes(config, s.config)]
    note = "; ".join(f"seed {seed} differs in {', '.join(changes(s.configs[seed], s.config))}" for seed in odd)
    return Rule("one configuration", _hard(not odd), f"{len(s.rows) - len(odd)} of {len(s.rows)} seeds", "all", note)


def _evaluation(s: Submission) -> Rule:
    problem = mismatch(s.rows, s.rows, s.metric)
    return Rule(
        "one evaluation", _hard(problem is None), "alike" if problem is None else "differs", "all alike", problem or ""
    )


def _bytes(s: Submission) -> Rule:
    largest = max(s.artifact_bytes(row) for row in s.rows)
    note = f"train_gpt.py is {len(s.code):,} bytes"
    if not _counted_what_is_shipped(s):
        counted = sorted({row["code_bytes"] for row in s.rows})
        note += f"; the trials counted {' or '.join(f'{num:,}' for num in counted)}"
    kept = largest <= ARTIFACT_CAP_BYTES
    return Rule("artifact bytes", _hard(kept), f"{largest:,}", f"<= {ARTIFACT_CAP_BYTES:,}", note)


def _training_clock(s: Submission) -> Rule:
    """The clock is looked at between steps, so a run that it ends is over by part of a step, as the published ones are."""
    worst = max(s.rows, key=lambda row: float(row["train_s"]))
    over_s = worst["train_s"] - TRAIN_CAP_S
    is_a_step = 0 < over_s <= 2 * worst["step_ms"] / 1000
    status: Status = "PASS" if over_s <= 0 else "WARN" if is_a_step else "FAIL"
    note = f"over by {over_s:.2f} s, less than two steps" if is_a_step else ""
    return Rule("training clock", status, f"{worst['train_s']:.1f} s", f"<= {TRAIN_CAP_S:.0f} s", note)


def _evaluation_time(s: Submission) -> Rule:
    worst_s = max(float(row["eval_s"]) for row in s.rows)
    return Rule("evaluation time", _hard(worst_s <= EVAL_CAP_S), f"{worst_s:.1f} s", f"<= {EVAL_CAP_S:.0f} s")


def _techniques(s: Submission) -> Rule:
    dead = [f"seed {row['seed']}: {what}" for row in s.rows for what in _dead(s, row)]
    unknown = [str(row["seed"]) for row in s.rows if row["seed"] not in s.trained]
    notes = [*dead, *([f"averages and recurrence not checked on seeds {', '.join(unknown)}"] if unknown else [])]
    return Rule(
        "techniques act", _hard(not dead), "dead" if dead else "alive", "what the arm asks for", "; ".join(notes)
    )


def _dead(s: Submission, row: Row) -> list[str]:
    config, record = s.configs[row["seed"]], s.trained.get(row["seed"])
    average = next((a for a in record.averages if a.key == row["average"]), None) if record else None
    never_looped = record is not None and config.recurrence.kind == "partial" and record.recurrence_on_step is None
    found = (
        (config.qat.enabled and row["qat_is_live"] is not True, "QAT is not live"),
        (average is not None and average.never_began, "the average never began"),
        (never_looped, "partial recurrence never began"),
    )
    return [what for is_so, what in found if is_so]


def _logs(s: Submission) -> Rule:
    without = [str(row["seed"]) for row in s.rows if not s.log(row).is_file()]
    note = f"none of seed {', '.join(without)}" if without else ""
    return Rule("train logs", _hard(not without), str(len(s.rows) - len(without)), "one per seed", note)


def _seeds(s: Submission) -> Rule:
    return Rule("seeds", _soft(len(s.rows) >= WIN_MIN_SEEDS), str(len(s.rows)), f">= {WIN_MIN_SEEDS}")


def _improvement(s: Submission) -> Rule:
    return _against_control(
        s, "improvement", "delta_nats", f">= {WIN_NATS} nats", lambda d: d <= -WIN_NATS, lambda d: f"{-d:.4f} nats"
    )


def _p_value(s: Submission) -> Rule:
    return _against_control(s, "p", "p_holm", f"< {WIN_P_VALUE}", lambda p: p < WIN_P_VALUE, lambda p: f"{p:.2g}")


def _against_control(
    s: Submission, name: str, column: str, limit: str, is_kept: Callable[[Any], bool], shown: Callable[[Any], str]
) -> Rule:
    if s.comparison is None:
        return Rule(name, "WARN", "unknown", limit, "no control: the arm is compared with nothing")
    value, note = s.comparison[column], f"against {s.control}, in {s.compared_metric}"
    if value is None:
        return Rule(name, "WARN", "unknown", limit, "; ".join(filter(None, [note, s.comparison["reason"]])))
    return Rule(name, _soft(is_kept(value)), shown(value), limit, note)


def _hardware(s: Submission) -> Rule:
    used = sorted({str(row["hardware"]) for row in s.rows})
    is_record = all(_RECORD_HARDWARE.fullmatch(name) for name in used)
    note = "" if is_record else "the clocks mean little here: run it on 8 x H100"
    return Rule("hardware", _soft(is_record), "; ".join(used), "8 x H100", note)


def _split(s: Submission) -> Rule:
    tokens, num_bytes = s.rows[0]["scored_tokens"], s.rows[0]["scored_bytes"]
    known = " or ".join(f"{t:,} tokens, {b:,} bytes" for t, b in PUBLISHED_SPLIT_BYTES.items())
    is_whole = PUBLISHED_SPLIT_BYTES.get(tokens) == num_bytes
    note = "" if is_whole else "not the published sp1024 validation split"
    return Rule("validation split", _soft(is_whole), f"{tokens:,} tokens, {num_bytes:,} bytes", known, note)


def _code(s: Submission) -> Rule:
    """Other code than the trials ran may give other numbers, and has another size."""
    ran = {row["code_sha"] for row in s.rows} | {record.code_sha for record in s.trained.values()}
    is_same = ran == {code_sha()}
    commits = sorted({str(row["git_sha"])[:12] for row in s.rows})
    note = "" if is_same else f"pack from a checkout of what the trials ran, commit {', '.join(commits)}"
    shown = ", ".join(sorted(sha or "unknown" for sha in ran))
    return Rule("code", _soft(is_same), shown, f"{code_sha()}, as packed", note)


def _counted_what_is_shipped(s: Submission) -> bool:
    """Up to the digits of the seeds: each trial counts the file that repeats it, and only one of them is shipped."""
    digits = max(len(str(row["seed"])) for row in s.rows)
    return all(abs(row["code_bytes"] - len(s.code)) < digits for row in s.rows)


def _in_brackets(text: str | None) -> str:
    return f" ({text})" if text else ""

"""Checks a submission against the rules of the challenge. The limits and their sources are in `trainer/limits.py`.

FAIL: the submission would be rejected. WARN: it is no record, or a record could not be verified.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from results.analysis.comparability import mismatch
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
    """Check every rule, the hard ones first."""
    hard = (_results, _configuration, _evaluation, _bytes, _training_clock, _evaluation_time, _techniques, _logs)
    soft = (_seeds, _improvement, _p_value, _hardware, _split, _code)
    return [rule(submission) for rule in (*hard, *soft)]


def failed(rules: Sequence[Rule]) -> list[Rule]:
    return [rule for rule in rules if rule.status == "FAIL"]


def is_record(rules: Sequence[Rule]) -> bool:
    """Whether the submission may enter the record track."""
    return all(rule.status == "PASS" for rule in rules)


def _hard(is_met: bool) -> Status:
    return "PASS" if is_met else "FAIL"


def _soft(is_met: bool) -> Status:
    return "PASS" if is_met else "WARN"


def _results(s: Submission) -> Rule:
    missing = [(row, f" ({row['failure_kind']})" if row["failure_kind"] else "") for row in s.missing]
    note = ", ".join(f"seed {row['seed']} {row['status']}{kind}" for row, kind in missing)
    total = len(s.rows) + len(s.missing)
    return Rule("results", _hard(not s.missing), f"{len(s.rows)} of {total} seeds", "all seeds", note)


def _configuration(s: Submission) -> Rule:
    odd = [seed for seed, config in s.configs.items() if changes(config, s.config)]
    note = "; ".join(f"seed {seed} differs in {', '.join(changes(s.configs[seed], s.config))}" for seed in odd)
    return Rule("one configuration", _hard(not odd), f"{len(s.rows) - len(odd)} of {len(s.rows)} seeds", "all", note)


def _evaluation(s: Submission) -> Rule:
    problem = mismatch(s.rows, s.rows, s.metric)
    measured = "same on all seeds" if problem is None else "differs"
    return Rule("one evaluation", _hard(problem is None), measured, "same on all seeds", problem or "")


def _bytes(s: Submission) -> Rule:
    largest = max(s.artifact_bytes(row) for row in s.rows)
    note = f"train_gpt.py is {len(s.code):,} bytes"
    if not _counted_what_is_shipped(s):
        counted = sorted({row["code_bytes"] for row in s.rows})
        note += f"; the trials counted {' or '.join(f'{num:,}' for num in counted)}"
    is_met = largest <= ARTIFACT_CAP_BYTES
    return Rule("artifact bytes", _hard(is_met), f"{largest:,}", f"<= {ARTIFACT_CAP_BYTES:,}", note)


def _training_clock(s: Submission) -> Rule:
    """Allow part of a step over the limit: the clock is checked between steps, in the published runs too."""
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
    dead = [f"seed {row['seed']}: {problem}" for row in s.rows for problem in _inactive(s, row)]
    unknown = [str(row["seed"]) for row in s.rows if row["seed"] not in s.trained]
    notes = [
        *dead,
        *([f"averages and recurrence not checked: no training record for {_seed_list(unknown)}"] if unknown else []),
    ]
    return Rule("techniques active", _hard(not dead), "no" if dead else "yes", "yes", "; ".join(notes))


def _inactive(s: Submission, row: Row) -> list[str]:
    config, record = s.configs[row["seed"]], s.trained.get(row["seed"])
    average = next((a for a in record.averages if a.key == row["average"]), None) if record else None
    never_recurred = record is not None and config.recurrence.kind == "partial" and record.recurrence_on_step is None
    found = (
        (config.qat.enabled and row["qat_is_live"] is not True, "QAT is not live"),
        (average is not None and average.never_began, "the average never started"),
        (never_recurred, "partial recurrence never started"),
    )
    return [problem for is_present, problem in found if is_present]


def _logs(s: Submission) -> Rule:
    without = [str(row["seed"]) for row in s.rows if not s.log(row).is_file()]
    note = f"no log for {_seed_list(without)}" if without else ""
    return Rule("train logs", _hard(not without), str(len(s.rows) - len(without)), "one per seed", note)


def _seed_list(seeds: Sequence[str]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(seeds)}"


def _seeds(s: Submission) -> Rule:
    return Rule("seeds", _soft(len(s.rows) >= WIN_MIN_SEEDS), str(len(s.rows)), f">= {WIN_MIN_SEEDS}")


def _improvement(s: Submission) -> Rule:
    return _against_control(
        s, "improvement", "delta_nats", f">= {WIN_NATS} nats", lambda d: d <= -WIN_NATS, lambda d: f"{-d:.4f} nats"
    )


def _p_value(s: Submission) -> Rule:
    return _against_control(
        s, "p (Holm)", "p_holm", f"< {WIN_P_VALUE}", lambda p: p < WIN_P_VALUE, lambda p: f"{p:.2g}"
    )


def _against_control(
    s: Submission, name: str, column: str, limit: str, is_met: Callable[[Any], bool], shown: Callable[[Any], str]
) -> Rule:
    if s.comparison is None:
        return Rule(name, "WARN", "unknown", limit, "no control to compare with")
    value, note = s.comparison[column], f"against {s.control}, in {s.compared_metric}"
    if value is None:
        return Rule(name, "WARN", "unknown", limit, "; ".join(filter(None, [note, s.comparison["reason"]])))
    return Rule(name, _soft(is_met(value)), shown(value), limit, note)


def _hardware(s: Submission) -> Rule:
    used = sorted({str(row["hardware"]) for row in s.rows})
    is_record = all(_RECORD_HARDWARE.fullmatch(name) for name in used)
    note = "" if is_record else "the time limits apply to 8 x H100"
    return Rule("hardware", _soft(is_record), "; ".join(used), "8 x H100", note)


def _split(s: Submission) -> Rule:
    tokens, num_bytes = s.rows[0]["scored_tokens"], s.rows[0]["scored_bytes"]
    known = " or ".join(f"{t:,} tokens, {b:,} bytes" for t, b in PUBLISHED_SPLIT_BYTES.items())
    is_whole = PUBLISHED_SPLIT_BYTES.get(tokens) == num_bytes
    note = "" if is_whole else "not the published sp1024 validation split"
    return Rule("validation split", _soft(is_whole), f"{tokens:,} tokens, {num_bytes:,} bytes", known, note)


def _code(s: Submission) -> Rule:
    """Warn if the packed code is not the code that the trials ran: numbers and size may differ."""
    ran = {row["code_sha"] for row in s.rows} | {record.code_sha for record in s.trained.values()}
    is_same = ran == {code_sha()}
    commits = sorted({str(row["git_sha"])[:12] for row in s.rows})
    note = "" if is_same else f"the trials ran commit {', '.join(commits)}: pack from a checkout of that commit"
    shown = ", ".join(sorted(sha or "unknown" for sha in ran))
    return Rule("code", _soft(is_same), shown, f"{code_sha()}, as packed", note)


def _counted_what_is_shipped(s: Submission) -> bool:
    """Whether the trials counted the shipped code. Each trial counts its own file, so digits of the seed may differ."""
    digits = max(len(str(row["seed"])) for row in s.rows)
    return all(abs(row["code_bytes"] - len(s.code)) < digits for row in s.rows)

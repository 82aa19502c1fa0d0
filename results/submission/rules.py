"""Checks a submission against the rules of the challenge. The limits and their sources are in `trainer/limits.py`.

FAIL: the submission would be rejected. WARN: it is no record, or a record could not be verified.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from results.analysis.comparability import mismatch
from results.analysis.notes import average_notes
from results.importers.score_columns import PUBLISHED_SPLIT_BYTES
from results.present.column_layout import number
from results.schema import Row
from results.submission.gather import Submission, differences
from trainer.config import Config
from trainer.limits import (
    ARTIFACT_CAP_BYTES,
    EVAL_CAP_S,
    TRAIN_CAP_S,
    WIN_MIN_SEEDS,
    WIN_NATS,
    WIN_P_VALUE,
    latest_train_s,
)
from trainer.records.files import changed_problem, file_problem
from trainer.records.fingerprint import config_sha
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


def check(s: Submission) -> list[Rule]:
    """Check every rule, the hard ones first."""
    num_seeds = len(s.rows)
    eval_s = max(float(row["eval_s"]) for row in s.rows)
    return [
        _results(s),
        _configuration(s),
        _evaluation(s),
        _artifacts(s),
        _bytes(s),
        _training_clock(s),
        Rule("evaluation time", _status(eval_s <= EVAL_CAP_S), f"{eval_s:.1f} s", f"<= {EVAL_CAP_S:.0f} s"),
        _techniques(s),
        _logs(s),
        Rule("seeds", _status(num_seeds >= WIN_MIN_SEEDS, "WARN"), str(num_seeds), f">= {WIN_MIN_SEEDS}"),
        *_against_control(s),
        _hardware(s),
        _split(s),
        _code(s),
    ]


def failed(rules: Sequence[Rule]) -> list[Rule]:
    return [rule for rule in rules if rule.status == "FAIL"]


def is_record(rules: Sequence[Rule]) -> bool:
    """Whether the submission may enter the record track."""
    return all(rule.status == "PASS" for rule in rules)


def _status(is_met: bool, otherwise: Status = "FAIL") -> Status:
    return "PASS" if is_met else otherwise


def _results(s: Submission) -> Rule:
    missing = [(row, f" ({row['failure_kind']})" if row["failure_kind"] else "") for row in s.missing]
    note = ", ".join(f"seed {row['seed']} {row['status']}{kind}" for row, kind in missing)
    measured = f"{len(s.rows)} of {len(s.rows) + len(s.missing)} seeds"
    return Rule("results", _status(not s.missing), measured, "all seeds", note)


def _configuration(s: Submission) -> Rule:
    keys = {seed: [change.key for change in differences(config, s.config)] for seed, config in s.configs.items()}
    odd = {seed: f"differs in {', '.join(own)}" for seed, own in keys.items() if own}
    changed = {row["seed"]: row["code_sha"] for row in s.rows if not _has_run(s.configs[row["seed"]], row)}
    notes = dict.fromkeys(changed, "its config.json is not the config that ran, or is of another version") | odd
    is_certain = odd or code_sha() in changed.values()  # another version may compute another identity
    status: Status = "FAIL" if is_certain else _status(not changed, "WARN")
    note = "; ".join(f"seed {seed}: {text}" for seed, text in notes.items())
    return Rule("one configuration", status, f"{len(s.rows) - len(notes)} of {len(s.rows)} seeds", "all", note)


def _has_run(config: Config, row: Row) -> bool:
    """Return whether a config is that of the trial, by the identity in the ledger; True if the ledger names none."""
    facts = config, row["data_sha"], row["tokenizer_sha"], row["world_size"]
    known = (config_sha(*facts, device) for device in ("cpu", "cuda"))
    return row["config_sha"] is None or (config.seed == row["seed"] and row["config_sha"] in known)


def _evaluation(s: Submission) -> Rule:
    problem = mismatch(s.rows, s.rows, s.metric)
    measured = "same on all seeds" if problem is None else "differs"
    return Rule("one evaluation", _status(problem is None), measured, "same on all seeds", problem or "")


def _artifacts(s: Submission) -> Rule:
    """Check that every result is unchanged, and every artifact still the file whose score it has."""
    bad, unknown = [], []
    for row in s.rows:
        folder = s.layout.trial(row["trial_id"])
        problem = changed_problem(folder.result) or file_problem(
            folder.artifact, row["artifact_sha256"], row["model_bytes"]
        )
        if problem:
            bad.append(problem)
        elif row["artifact_sha256"] is None:
            unknown.append(str(row["seed"]))
    note = "; ".join(
        [*bad, *([f"no hash was recorded for {_seed_list(unknown)}: only the size was checked"] if unknown else [])]
    )
    measured = f"{len(s.rows) - len(bad) - len(unknown)} of {len(s.rows)} seeds"
    return Rule("artifacts as measured", "FAIL" if bad else _status(not unknown, "WARN"), measured, "all seeds", note)


def _bytes(s: Submission) -> Rule:
    largest = max(s.artifact_bytes(row) for row in s.rows)
    note = f"train_gpt.py is {len(s.code):,} bytes"
    digits = max(len(str(row["seed"])) for row in s.rows)  # each trial counts its own code, which contains its seed
    if any(abs(row["code_bytes"] - len(s.code)) >= digits for row in s.rows):
        counted = sorted({row["code_bytes"] for row in s.rows})
        note += f"; the trials counted {' or '.join(f'{num:,}' for num in counted)}"
    status = _status(largest <= ARTIFACT_CAP_BYTES)
    return Rule("artifact bytes", status, f"{largest:,}", f"<= {ARTIFACT_CAP_BYTES:,}", note)


def _training_clock(s: Submission) -> Rule:
    """Allow two steps over the limit: the clock is read between steps, in the published runs too."""
    worst = max(s.rows, key=lambda row: float(row["train_s"]))
    over_s = worst["train_s"] - TRAIN_CAP_S
    is_allowed = worst["train_s"] <= latest_train_s(worst["step_ms"])
    status: Status = "PASS" if over_s <= 0 else "WARN" if is_allowed else "FAIL"
    note = f"over by {over_s:.2f} s, within two steps" if status == "WARN" else ""
    return Rule("training clock", status, f"{worst['train_s']:.1f} s", f"<= {TRAIN_CAP_S:.0f} s", note)


def _techniques(s: Submission) -> Rule:
    """Fail if a technique had no effect; warn if an average still holds initial weights."""
    dead = [f"seed {row['seed']}: {problem}" for row in s.rows for problem in _inactive(s, row)]
    partly = [
        f"seed {row['seed']}: {note}" for row in s.rows for note in average_notes([row]) if not row["never_began"]
    ]
    unknown = [str(row["seed"]) for row in s.rows if row["never_began"] is None or row["seed"] not in s.trained]
    note = f"averages and recurrence not checked: no training record for {_seed_list(unknown)}"
    status: Status = "FAIL" if dead else "WARN" if partly else "PASS"
    measured = {"FAIL": "no", "WARN": "in part", "PASS": "yes"}[status]
    return Rule("techniques active", status, measured, "yes", "; ".join([*dead, *partly, *([note] if unknown else [])]))


def _inactive(s: Submission, row: Row) -> list[str]:
    config, record = s.configs[row["seed"]], s.trained.get(row["seed"])
    found = ["QAT is not live"] if config.qat.enabled and row["qat_is_live"] is not True else []
    found += average_notes([row]) if row["never_began"] else []
    if record and config.recurrence.kind == "partial" and record.recurrence_on_step is None:
        found.append("partial recurrence never started")
    return found


def _logs(s: Submission) -> Rule:
    without = [str(row["seed"]) for row in s.rows if not s.log(row).is_file()]
    note = f"no log for {_seed_list(without)}" if without else ""
    return Rule("train logs", _status(not without), str(len(s.rows) - len(without)), "one per seed", note)


def _seed_list(seeds: Sequence[str]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(seeds)}"


def _against_control(s: Submission) -> list[Rule]:
    """Return the rules about the improvement and its p. What is unknown is a warning."""
    line = s.comparison or dict.fromkeys(("delta_nats", "p_holm", "reason"))
    gain, p = None if line["delta_nats"] is None else -line["delta_nats"], line["p_holm"]
    note = f"against {s.control}, in {s.compared_metric}" if s.comparison else "no control to compare with"
    why = "; ".join(filter(None, [note, line["reason"]]))
    gain_text = "unknown" if gain is None else f"{gain:.4f} nats"
    is_better = (gain or 0.0) > 0
    has_gain = _status((gain or 0.0) >= WIN_NATS, "WARN")
    has_p = _status(is_better and p is not None and p < WIN_P_VALUE, "WARN")
    p_note = why if p is None else note if is_better else f"{note}: the arm is not better"
    return [
        Rule("improvement", has_gain, gain_text, f">= {WIN_NATS} nats", why if gain is None else note),
        Rule("p (Holm)", has_p, number(p, ".2g", "unknown"), f"< {WIN_P_VALUE}", p_note),
    ]


def _hardware(s: Submission) -> Rule:
    used = sorted({str(row["hardware"]) for row in s.rows})
    is_record = all(_RECORD_HARDWARE.fullmatch(name) for name in used)
    note = "" if is_record else "the time limits apply to 8 x H100"
    return Rule("hardware", _status(is_record, "WARN"), "; ".join(used), "8 x H100", note)


def _split(s: Submission) -> Rule:
    tokens, num_bytes = s.rows[0]["scored_tokens"], s.rows[0]["scored_bytes"]
    known = " or ".join(f"{t:,} tokens, {b:,} bytes" for t, b in PUBLISHED_SPLIT_BYTES.items())
    is_whole = PUBLISHED_SPLIT_BYTES.get(tokens) == num_bytes
    note = "" if is_whole else "not the published sp1024 validation split"
    return Rule("validation split", _status(is_whole, "WARN"), f"{tokens:,} tokens, {num_bytes:,} bytes", known, note)


def _code(s: Submission) -> Rule:
    """Warn if the packed code is not the code that the trials ran: numbers and size may differ."""
    ran = {row["code_sha"] for row in s.rows} | {record.code_sha for record in s.trained.values()}
    is_same = ran == {code_sha()}
    commits = sorted({str(row["git_sha"])[:12] for row in s.rows})
    note = "" if is_same else f"the trials ran commit {', '.join(commits)}: pack from a checkout of that commit"
    shown = ", ".join(sorted(sha or "unknown" for sha in ran))
    return Rule("code", _status(is_same, "WARN"), shown, f"{code_sha()}, as packed", note)

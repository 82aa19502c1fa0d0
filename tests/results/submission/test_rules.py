"""The rule check of a submission: every rule on run folders made of real records."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from results.submission.gather import Submission, gather
from results.submission.rules import Rule, check, failed, is_record
from tests.results.synthetic import Run
from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import build_config
from trainer.records.files import write_bytes, write_json, write_text
from trainer.records.results import AverageRecord, TrainingRecord
from trainer.run.bundle import code_bytes, code_sha

RECORD: dict[str, Any] = {
    "hardware": "8 x NVIDIA H100 80GB HBM3",
    "world_size": 8,
    "scored_tokens": 62_021_632,
    "scored_bytes": 151_080_363,
    "train_s": 599.9,
    "eval_s": 400.0,
    "sliding_bpb": 1.10,
}


def config_of(seed: int, **changes: Any) -> Config:
    return build_config({"seed": seed, "data.path": "/data", **changes}, "test")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", "name: bits\nquestion: Does it?\ncontrol: base\n")


def add(
    run: Run, arm: str, seed: int, config: dict[str, Any] | None = None, has_log: bool = True, **changes: Any
) -> str:
    own = config_of(seed, **(config or {}))
    artifact = f"artifact of {arm} seed {seed}".encode()
    own_facts = {"code_bytes": code_bytes(own), "code_sha": code_sha(), "artifact_sha256": sha256(artifact).hexdigest()}
    name = run.finish(arm, seed, **own_facts | RECORD | changes)
    folder = run.layout.trial(name)
    write_bytes(folder.artifact, artifact)
    write_json(folder.config, own.model_dump(mode="json"))
    if has_log:
        write_text(folder.log, "trained\n")
    return name


def fill(run: Run, **changes: Any) -> Submission:
    """Write three seeds of a control and of an arm that improves enough. `changes` apply to the arm's seed 7."""
    for seed, noise in ((42, 0.0), (1337, 0.0002), (7, -0.0001)):
        add(run, "base", seed, sliding_bpb=1.10 + noise)
        add(run, "arm", seed, sliding_bpb=1.09 + 1.01 * noise, **(changes if seed == 7 else {}))
    return gather(run.layout.root, "arm")


def named(rules: list[Rule]) -> dict[str, Rule]:
    return {rule.name: rule for rule in rules}


def test_a_record_passes_every_rule(run: Run) -> None:
    submission = fill(run)
    rules = check(submission)
    assert is_record(rules), [rule for rule in rules if rule.status != "PASS"]
    assert (submission.metric, submission.control, submission.compared_metric) == ("sliding_bpb", "base", "sliding_bpb")
    assert submission.comparison is not None
    assert submission.comparison["verdict"] == "WIN"
    assert "not checked" in named(rules)["techniques active"].note  # there is no training record


HARD: dict[str, tuple[dict[str, Any], str]] = {
    "artifact bytes": ({"model_bytes": 15_990_000}, "16,0"),
    "training clock": ({"train_s": 601.0, "step_ms": 83.0}, "601.0 s"),
    "evaluation time": ({"eval_s": 600.1}, "600.1 s"),
    "one evaluation": ({"eval_stride": 64}, "differs"),
    "one configuration": ({"config": {"optim.matrix_lr": 0.1}}, "2 of 3 seeds"),
    "techniques active": ({"config": {"qat.enabled": True}, "qat_is_live": False}, "no"),
    "train logs": ({"has_log": False}, "2"),
}


@pytest.mark.parametrize("name", HARD)
def test_a_hard_rule_fails_by_one_seed(run: Run, name: str) -> None:
    changes, measured = HARD[name]
    rules = check(fill(run, **changes))
    assert name in [rule.name for rule in failed(rules)]
    assert named(rules)[name].measured.startswith(measured)


def test_a_trial_that_did_not_finish_fails_and_is_named(run: Run) -> None:
    fill(run)
    run.entry("arm", 7, "failed", failure_kind="oom", reason="too big")
    (rule,) = failed(check(gather(run.layout.root, "arm")))
    assert (rule.name, rule.measured, rule.note) == ("results", "2 of 3 seeds", "seed 7 failed (oom)")


def test_a_clock_that_ended_the_run_is_over_by_a_step_and_warns(run: Run) -> None:
    rules = named(check(fill(run, train_s=600.1, step_ms=83.0)))
    assert rules["training clock"].status == "WARN"


@pytest.mark.parametrize(
    ("changes", "average", "recurrence_on_step", "problem"),
    [
        (
            {"average.kind": "ema"},
            AverageRecord(key="ema", never_began=True),
            None,
            "the average never began: the last weights were exported",
        ),
        ({"average.kind": "ema"}, AverageRecord(key="ema"), None, ""),
        (
            {"recurrence": {"kind": "partial", "layers": [3]}},
            AverageRecord(key="ema"),
            None,
            "partial recurrence never started",
        ),
        ({"recurrence": {"kind": "partial", "layers": [3]}}, AverageRecord(key="ema"), 5, ""),
    ],
)
def test_a_technique_that_never_started_fails(
    run: Run, changes: dict[str, Any], average: AverageRecord, recurrence_on_step: int | None, problem: str
) -> None:
    add(run, "base", 42, changes, average="ema")
    known = {"steps": 1, "train_s": 1.0, "step_ms": 1.0, "tokens": 1, "num_params": 1, "wall_s": 1.0, "world_size": 8}
    texts = dict.fromkeys(("hardware", "node", "torch_version", "data_sha", "tokenizer_sha"), "x")
    nulls = dict.fromkeys(
        ("final_train_loss_nats", "qat_on_step", "qat_coverage", "qat_is_live", "peak_memory_mib"), None
    )
    record = TrainingRecord.model_validate(
        {
            "train_fingerprint": "fp42",
            "averages": [average],
            "recurrence_on_step": recurrence_on_step,
            **known,
            **texts,
            **nulls,
        }
    )
    write_text(run.layout.trained("fp42").record, record.model_dump_json())
    rule = named(check(gather(run.layout.root, "base")))["techniques active"]
    assert (rule.status, rule.note) == (("FAIL", f"seed 42: {problem}") if problem else ("PASS", ""))


def test_an_average_of_initial_weights_is_no_active_technique(run: Run) -> None:
    rule = named(check(fill(run, initial_share=0.25, never_began=False)))["techniques active"]
    assert (rule.status, rule.measured) == ("WARN", "in part")
    assert "seed 7: 25.0% of the average is the initial weights" in rule.note


@pytest.mark.parametrize(("over_steps", "status"), [(0.0, "PASS"), (1.9, "WARN"), (2.1, "FAIL")])
def test_the_clock_may_pass_its_limit_by_two_steps(run: Run, over_steps: float, status: str) -> None:
    rules = named(check(fill(run, train_s=600.0 + over_steps * 0.083, step_ms=83.0)))
    assert rules["training clock"].status == status


def test_soft_rules_warn(run: Run) -> None:
    add(run, "base", 42, hardware="1 rank on a laptop (2 cores)", scored_tokens=1000, scored_bytes=2400)
    rules = check(gather(run.layout.root, "base"))
    assert not failed(rules)
    warned = {rule.name for rule in rules if rule.status == "WARN"}
    assert warned == {"seeds", "improvement", "p (Holm)", "hardware", "validation split"}
    assert "no control" in named(rules)["p (Holm)"].note  # it is the control itself


def test_a_worse_arm_and_one_with_another_evaluation_do_not_improve(run: Run) -> None:
    fill(run)
    worse = named(check(gather(run.layout.root, "base", control="arm")))
    assert (worse["improvement"].status, worse["p (Holm)"].status) == ("WARN", "WARN")
    assert "the arm is not better" in worse["p (Holm)"].note
    assert worse["improvement"].measured.startswith("-0.01")
    for seed in (42, 1337, 7):
        add(run, "short", seed, eval_seq_len=128)
    other = named(check(gather(run.layout.root, "short")))
    assert (other["improvement"].status, other["improvement"].measured) == ("WARN", "unknown")
    assert "eval_seq_len" in other["improvement"].note


def test_other_code_than_counted_is_noted(run: Run) -> None:
    submission = fill(run, code_bytes=46_000, code_sha="0123456789ab", git_sha="fedcba987654" + 28 * "0")
    rules = named(check(submission))
    assert rules["code"].status == "WARN"
    assert rules["code"].measured == ", ".join(sorted(["0123456789ab", code_sha()]))
    assert "commit abc, fedcba987654" in rules["code"].note
    assert "the trials counted" in rules["artifact bytes"].note
    assert "46,000" in rules["artifact bytes"].note
    row = next(row for row in submission.rows if row["seed"] == 7)
    assert submission.artifact_bytes(row) == row["model_bytes"] + len(submission.code)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: run.layout.trial("arm-s42-0").config.unlink(), "config: missing"),
        (lambda run: run.layout.trial("arm-s42-0").config.write_text('{"no_such": 1}'), "no_such: 1: unknown key"),
        (lambda run: [run.entry("arm", seed, "queued") for seed in (42, 1337, 7)], "none has a score"),
    ],
)
def test_what_cannot_be_packed_at_all(run: Run, break_it: Callable[[Run], object], message: str) -> None:
    fill(run)
    break_it(run)
    with pytest.raises(InputError, match=message):
        gather(run.layout.root, "arm")


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (lambda path: path.write_bytes(b"artifact of base seed 42"), "is not the file that was written (sha256 "),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is not the file that was written (sha256 "),
        (lambda path: path.unlink(), "trials/arm-s7-0/artifact.pgz is missing"),
    ],
)
def test_an_artifact_that_was_exchanged_or_damaged_is_refused(
    run: Run, damage: Callable[[Path], object], note: str
) -> None:
    submission = fill(run)
    assert named(check(submission))["artifacts as measured"].status == "PASS"
    damage(run.layout.trial("arm-s7-0").artifact)
    (rule,) = failed(check(submission))
    assert (rule.name, rule.measured) == ("artifacts as measured", "2 of 3 seeds")
    assert note in rule.note


def test_of_artifacts_of_earlier_versions_the_size_is_checked_and_that_is_said(run: Run) -> None:
    earlier = {"artifact_sha256": None, "model_bytes": len(b"artifact of arm seed 7")}
    rule = named(check(fill(run, **earlier)))["artifacts as measured"]
    assert (rule.status, rule.note) == ("WARN", "no hash was recorded for seed 7: only the size was checked")
    rule = named(check(fill(run, **earlier | {"model_bytes": 9_000_000})))["artifacts as measured"]
    assert (rule.status, rule.note) == (
        "FAIL", "trials/arm-s7-0/artifact.pgz is not the file that was written (22 bytes, recorded 9,000,000)"
    )  # fmt: skip

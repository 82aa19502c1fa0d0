"""Run folders after crashes and edits by hand: every trial of the ledger stays a row."""

import errno
import json
from pathlib import Path

import pandas as pd
import pytest

import results
from results.schema import NAMES
from tests.results.synthetic import Run
from trainer.errors import InputError
from trainer.records.files import write_json, write_text


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / "bits")


def test_every_state_is_a_row_in_the_order_of_first_appearance(run: Run) -> None:
    for arm in ("int8", "int6"):
        for seed in (42, 7):
            run.entry(arm, seed)
    run.entry("int8", 42, "running")
    run.finish("int6", 7, 2.4)
    run.entry("int8", 7, "failed", failure_kind="oom", reason="out of memory at step 3")
    trials = results.load(run.layout.root)
    assert list(trials.columns) == list(NAMES)
    assert trials["trial_id"].tolist() == ["int8-s42-0", "int8-s7-0", "int6-s42-0", "int6-s7-0"]
    assert trials["status"].tolist() == ["running", "failed", "queued", "finished"]
    assert trials["failure_kind"].tolist()[1] == "oom"
    assert trials["reason"].tolist()[1] == "out of memory at step 3"
    assert trials["post_quant_bpb"].isna().tolist() == [True, True, True, False]
    assert trials.attrs["control"] == "int8"
    assert trials.attrs["question"] == "Does it?"
    assert trials.attrs["problems"] == []


def test_numbers_are_those_of_the_result(run: Run) -> None:
    run.finish("int8", 42, 2.4123456789012345, sliding_bpb=None, steps=17, notes=["a", "b"], qat_is_live=False)
    row = results.load(run.layout.root).iloc[0]
    assert row["post_quant_bpb"] == 2.4123456789012345
    assert row["steps"] == 17
    assert row["bytes_per_token"] == row["scored_bytes"] / row["scored_tokens"]
    assert row["notes"] == "a; b"
    assert row["source"] == "run"
    assert not row["qat_is_live"]
    assert row["gpu_held_s"] == 0.0
    assert results.load(run.layout.root)["sliding_bpb"].isna().all()


def test_a_rewritten_result_is_read_again(run: Run) -> None:
    run.finish("int8", 42, 2.5)
    assert results.load(run.layout.root)["post_quant_bpb"].tolist() == [2.5]
    run.finish("int8", 42, 2.25)
    assert results.load(run.layout.root)["post_quant_bpb"].tolist() == [2.25]


def test_a_truncated_ledger_line_is_reported_and_loses_no_other(run: Run) -> None:
    run.finish("int8", 42)
    with run.layout.ledger.open("a") as file:
        file.write('{"not": "an entry"}\n')
    run.finish("int8", 7)
    with run.layout.ledger.open("a") as file:
        file.write('{"at": 1.0, "sweep": "bi')
    trials = results.load(run.layout.root)
    assert trials["seed"].tolist() == [42, 7]
    problems = trials.attrs["problems"]
    assert len(problems) == 2
    assert "line 2" in problems[0]
    assert "cut off" in problems[1]


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[]", '{"schema_version": 1}', "NaN", b"\xff\xfe"],
    ids=["missing", "empty", "cut", "list", "no-fields", "nan", "binary"],
)
def test_an_unreadable_result_is_a_row_with_a_reason(run: Run, content: str | bytes | None) -> None:
    trial = run.finish("int8", 42)
    run.finish("int8", 7)
    path = run.layout.trial(trial).result
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    trials = results.load(run.layout.root)
    assert trials["status"].tolist() == ["finished", "finished"]
    assert trials["post_quant_bpb"].isna().tolist() == [True, False]
    assert "result.json" in trials["reason"].tolist()[0]
    assert len(trials.attrs["problems"]) == 1


@pytest.mark.parametrize(
    "error", [None, OSError(), OSError(errno.EIO, "Input/output error")], ids=["folder", "", "disk"]
)
def test_a_result_that_the_disk_does_not_give_is_a_row_with_a_reason(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    path = run.layout.trial(run.finish("int8", 42)).result
    run.finish("int8", 7)
    if error is None:
        path.unlink()
        path.mkdir()
    read = Path.read_bytes

    def fail(own: Path) -> bytes:
        if own == path and error is not None:
            raise error
        return read(own)

    monkeypatch.setattr(Path, "read_bytes", fail)
    trials = results.load(run.layout.root)
    assert trials["post_quant_bpb"].isna().tolist() == [True, False]
    why = "Is a directory" if error is None else error.strerror or "OSError"
    assert "result.json cannot be read, so its numbers are unknown" in trials["reason"].tolist()[0]
    assert why in trials["reason"].tolist()[0]


def test_a_result_with_a_nan_is_reported(run: Run) -> None:
    trial = run.finish("int8", 42)
    path = run.layout.trial(trial).result
    raw = json.loads(path.read_text())
    write_text(path, json.dumps(raw | {"float_bpb": float("nan")}))
    row = results.load(run.layout.root).iloc[0]
    assert "float_bpb" in row["reason"]


def test_a_result_of_another_trial_is_not_used(run: Run) -> None:
    run.finish("int6", 42)
    run.entry("int8", 42, "finished")
    write_text(run.layout.trial("int8-s42-0").result, run.layout.trial("int6-s42-0").result.read_text())
    trials = results.load(run.layout.root)
    assert "that of int6-s42-0" in trials["reason"].tolist()[1]
    assert trials["post_quant_bpb"].isna().tolist() == [False, True]


def test_numbers_of_an_unfinished_trial_are_not_shown(run: Run) -> None:
    run.finish("int8", 42)
    run.entry("int8", 42, "running", attempt=1)
    assert results.load(run.layout.root)["post_quant_bpb"].isna().all()


def test_trials_of_an_earlier_configuration_are_rows_but_not_current(run: Run) -> None:
    run.entry("int8", 42, "finished", trial_id="int8-s42-old")
    run.finish("int8", 42)
    trials = results.load(run.layout.root)
    assert trials["is_current"].tolist() == [False, True]
    assert "superseded by int8-s42-0" in trials["reason"].tolist()[0]
    run.entry("int8", 42, "finished", trial_id="int8-s42-old")  # the sweep was edited back
    assert results.load(run.layout.root)["is_current"].tolist() == [True, False]


def test_currency_is_decided_per_arm_and_not_per_seed(run: Run) -> None:
    for seed in (1, 2):
        run.entry("int8", seed, "failed", trial_id=f"old-s{seed}", config_sha="old")
    run.entry("qat", 1, "failed", trial_id="qat-s1", config_sha="old")
    run.entry("int8", 3, "queued", trial_id="new-s3", config_sha="new")
    trials = results.load(run.layout.root).set_index("trial_id")
    assert trials["is_current"].to_dict() == {"old-s1": False, "old-s2": False, "qat-s1": True, "new-s3": True}
    reason = "superseded: the sweep has since given this arm another configuration"
    assert trials.loc["old-s1", "reason"] == reason
    assert trials["config_sha"].to_dict() == {"old-s1": "old", "old-s2": "old", "qat-s1": "old", "new-s3": "new"}
    run.entry("int8", 2, "failed", trial_id="old-s2", config_sha="old")  # the edit was undone: both old seeds count
    run.entry("int8", 3, "invalid", trial_id="new-s3", config_sha="new")  # this entry asks for nothing
    trials = results.load(run.layout.root).set_index("trial_id")
    assert trials["is_current"].to_dict() == {"old-s1": True, "old-s2": True, "qat-s1": True, "new-s3": False}
    assert trials.loc["new-s3", "reason"] == reason


def test_several_runs_and_globs(tmp_path: Path) -> None:
    for name in ("b", "a"):
        Run(tmp_path / name).finish("int8", 42)
    (tmp_path / "not-a-run").mkdir()
    both = results.load([tmp_path / "b", tmp_path / "a", tmp_path / "b"])
    assert len(both) == 2
    assert both.attrs["runs"] == [str(tmp_path / "b"), str(tmp_path / "a")]
    globbed = results.load(str(tmp_path / "*"))
    assert globbed.attrs["runs"] == [str(tmp_path / "a"), str(tmp_path / "b")]


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        results.load(tmp_path / "missing")
    with pytest.raises(InputError, match=r"ledger\.jsonl"):
        results.load(tmp_path)
    with pytest.raises(InputError, match="no such run folder"):
        results.load(str(tmp_path / "*-nothing"))


def test_a_broken_or_missing_sweep_file_is_no_error(run: Run) -> None:
    run.finish("int8", 42)
    run.layout.sweep.write_text("a: [\n")
    trials = results.load(run.layout.root)
    assert trials.attrs["control"] is None
    assert len(trials.attrs["problems"]) == 1
    run.layout.sweep.unlink()
    assert results.load(run.layout.root).attrs["sweep"] == "bits"


def test_the_control_of_a_launch_wins_over_the_file(run: Run) -> None:
    run.finish("a", 42)
    run.layout.provenance.write_text('{"control": "a"}')
    assert results.load(run.layout.root).attrs["control"] == "a"
    run.layout.provenance.write_text("[broken")
    assert results.load(run.layout.root).attrs["control"] == "int8"


def test_the_cost_includes_failed_attempts(run: Run) -> None:
    run.entry("int8", 42, "failed", failure_kind="infra", job_id="j-0", gpu_held_s=100.0, cost_usd=1.0)
    run.entry("int8", 42, "queued", gpu_held_s=100.0, cost_usd=1.0)  # as `pgray retry` copies it
    run.entry("int8", 42, "finished", job_id="j-1", gpu_held_s=50.0, cost_usd=0.5)
    run.entry("int6", 42, "finished", job_id="j-2", gpu_held_s=50.0)
    trials = results.load(run.layout.root)
    assert trials["gpu_held_s"].tolist() == [150.0, 50.0]
    assert trials["cost_usd"].isna().tolist() == [False, True]
    assert trials["cost_usd"].tolist()[0] == 1.5


def test_config_values_as_columns(tmp_path: Path) -> None:
    """Types survive, a missing config is null, and the columns of the results keep their names and values."""
    run = Run(tmp_path / "bits")
    values = {"a": (0.02, True, 4, [1, 2]), "b": (1, False, 6, [])}
    for arm, (lr, enabled, bits, layers) in values.items():
        trial = run.finish(arm, 42)
        parts = {"optim": {"matrix_lr": lr}, "qat": {"enabled": enabled}, "quant": {"bits": {"mlp": bits}}}
        write_json(
            run.layout.trial(trial).config, {"seed": 42, "model": {"xsa": layers}, "export": {"codec": arm}} | parts
        )
    run.entry("c", 42, "queued")
    plain, trials = results.load(run.layout.root), results.load(run.layout.root, configs=True)
    pd.testing.assert_frame_equal(trials[list(plain)], plain)
    assert trials.attrs == plain.attrs
    added = {name: str(trials[name].dtype) for name in trials if name not in plain}
    types = {"optim.matrix_lr": "Float64", "qat.enabled": "boolean", "quant.bits.mlp": "Int64"}
    assert added == types | {"model.xsa": "string", "export.codec": "string"}
    assert trials["optim.matrix_lr"].tolist()[:2] == [0.02, 1.0]
    assert trials["model.xsa"].tolist()[:2] == ["[1, 2]", "[]"]
    assert trials.loc[2, list(added)].isna().all()
    assert len(results.ablation(trials, "a", "post_quant_bpb")) == 3
    assert len(results.load([run.layout.root, run.layout.root], configs=True)) == 3

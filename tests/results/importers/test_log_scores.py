"""The evaluation that a score line belongs to, and rows from logs that end early."""

from pathlib import Path

import pytest

from results.importers import read_logs
from tests.results import foreign_logs as made
from trainer.errors import InputError

ROUNDTRIP = "final_int8_zlib_roundtrip"


@pytest.mark.parametrize(
    ("before", "eval_time_ms", "kind"),
    [
        (["final_eval_mode:sliding_window stride:64 batch_seqs:32"], 2000, "sliding"),
        (["final_eval_mode:standard"], 200_000, "plain"),
        (["  sliding_eval [ 50.0%] 100/200 windows running_bpb=1.170000"], 2000, "sliding"),
        (made.SLIDING, 200_000, "plain"),
        ([], 2000, "plain"),  # about one forward pass
        ([], 75_000, "sliding"),  # 35 of them
        ([], 20_000, None),  # 10: a slow plain one, or stride 256
        ([], None, None),
    ],
)
def test_a_roundtrip_line_is_classified_by_its_neighbours_or_its_time(
    before: list[str], eval_time_ms: int | None, kind: str | None, tmp_path: Path
) -> None:
    rest = "" if eval_time_ms is None else f" eval_time:{eval_time_ms}ms"
    scored = made.score(ROUNDTRIP, 1.97598306, 1.17029157, rest=rest)
    run = made.read_one(tmp_path, made.header(), made.training(), before, scored)
    found = (run.get("post_quant_bpb") == 1.17029157, run.get("sliding_bpb") == 1.17029157)
    assert found == (kind == "plain", kind == "sliding")
    if kind is None:
        assert "may be plain or sliding" in run.nulls["post_quant_bpb"]
        assert run.columns["status"] == "finished"
        assert "may be plain or sliding" in str(run.columns["reason"])


def test_a_repeated_sliding_score_is_not_a_plain_score(tmp_path: Path) -> None:
    run = made.read_one(tmp_path, made.header(), made.training(), made.SLIDING, made.DUPLICATE)
    assert (run.get("post_quant_bpb"), run.get("sliding_bpb")) == (None, 1.12156083)


def test_exact_wins_in_either_order_and_alone(tmp_path: Path) -> None:
    for scored in (made.PLAIN, made.PLAIN[::-1], made.PLAIN[1:]):
        run = made.read_one(tmp_path, made.header(), made.training(), made.SLIDING, scored)
        assert run.columns["post_quant_bpb"] == 1.14500258
    run = made.read_one(tmp_path, made.header(), made.training(), made.SLIDING, made.PLAIN[:1])
    assert run.columns["post_quant_bpb"] == 1.1450


def test_two_different_scores_of_one_kind_are_null(tmp_path: Path) -> None:
    other = made.score("final_int8_roundtrip", 1.95, 1.1549)
    run = made.read_one(tmp_path, made.header(), made.training(), made.PLAIN, other, made.SLIDING)
    assert "several scores: 1.14500258" in run.nulls["post_quant_bpb"]


def test_the_smaller_of_two_strides_counts(tmp_path: Path) -> None:
    wide = made.score("final_int6_sliding_window", 1.90, 1.1253, rest=" stride:512 eval_time:9000ms")
    narrow = made.score("final_int6_sliding_window_s64", 1.8937, 1.1216, rest=" eval_time:70000ms")
    run = made.read_one(tmp_path, made.header(), made.training(), made.PLAIN, wide, narrow)
    assert (run.get("sliding_bpb"), run.get("eval_stride")) == (1.1216, 64)


def test_a_wrong_byte_count_is_a_note(tmp_path: Path) -> None:
    scored = made.score("final_int6_roundtrip", 1.93328889, 1.14500258 / 1.17, rest=" eval_time:2000ms")
    run = made.read_one(tmp_path, made.header(), made.training(), made.artifact(), scored)
    assert "bpb per nat 0.50620, but the published split has 0.59226" in str(run.columns["notes"])
    assert run.get("scored_bytes") is None


@pytest.mark.parametrize(
    ("tail", "kind", "reason"),
    [
        ([], None, "ends during training, after step 4000"),
        (["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"], "oom", "out of memory"),
        (["step:4500/20000 train_loss:nan train_time:1ms step_avg:1.00ms"], "diverged", "not finite"),
        (["[rank0]: Traceback (most recent call last):"], None, "traceback"),
    ],
)
def test_a_log_that_ends_early_is_a_failed_run(tail: list[str], kind: str | None, reason: str, tmp_path: Path) -> None:
    run = made.read_one(tmp_path, made.header(), made.training()[:3], tail)
    assert (run.columns["status"], run.get("failure_kind")) == ("failed", kind)
    assert reason in str(run.columns["reason"])
    assert run.get("steps") is None
    assert "ends during training" in run.nulls["steps"]
    made.assert_sources_hold(run)


def test_a_log_that_ends_during_test_time_training(tmp_path: Path) -> None:
    run = made.read_one(tmp_path, made.header(), made.training(), made.PLAIN, made.SLIDING, made.TTT[:3])
    assert run.columns["status"] == "finished"
    assert "chunk 1893 of 1893, running bpb 1.167712" in run.nulls["ttt_bpb"]


def test_a_last_validation_before_the_end_is_not_the_raw_bpb(tmp_path: Path) -> None:
    lines = [line for line in made.training() if not line.startswith("step:7000/20000 val_loss")]
    run = made.read_one(tmp_path, made.header(), lines, made.PLAIN)
    assert run.get("raw_bpb") is None
    assert "after step 0" in run.nulls["raw_bpb"]


def test_a_value_that_is_not_finite_is_null(tmp_path: Path) -> None:
    scored = ["final_int6_roundtrip_exact val_loss:nan val_bpb:nan", *made.SLIDING]
    run = made.read_one(tmp_path, made.header(), made.training(), scored)
    assert "not a usable number" in run.nulls["post_quant_bpb"]
    run = made.read_one(tmp_path, made.header(), made.training(), scored[:1])
    assert (run.get("status"), run.get("failure_kind")) == ("failed", "diverged")


@pytest.mark.parametrize(
    ("lines", "expected", "note"),
    [
        (["Serialized model: 100000 bytes", "Code size: 10 bytes", "Total submission size: 100010 bytes"], {}, None),
        (["Serialized model int8+zlib: 900 bytes", "Code size: 100 bytes"], {"artifact_bytes": 1000}, None),
        (
            ["Serialized model int8+zlib: 900 bytes", "Total submission size int8+zlib: 1000 bytes"],
            {"artifact_bytes": 1000, "code_bytes": 100},
            None,
        ),
        (
            ["Serialized model a+zlib: 900 bytes", "Code size: 50 bytes", "Total submission size a+zlib: 1000 bytes"],
            {"artifact_bytes": 1000, "code_bytes": 50},
            "total 1,000 bytes is not model 900 + code 50",
        ),
        (["Total submission size a: 1000 bytes", "Total submission size b: 2000 bytes"], {}, None),
        (
            [
                "Serialized model a: 900 bytes",
                "Code size: 100 bytes",
                "Total submission size a: 1000 bytes",
                "Total submission size b: 2000 bytes",
            ],
            {"code_bytes": 100},
            None,
        ),
    ],
)
def test_artifact_bytes(lines: list[str], expected: dict[str, int], note: str | None, tmp_path: Path) -> None:
    run = made.read_one(tmp_path, made.header(), made.training(), lines, made.PLAIN)
    assert run.get("artifact_bytes") == expected.get("artifact_bytes")
    assert run.get("code_bytes") == expected.get("code_bytes", run.get("code_bytes"))
    assert run.get("notes") == note


@pytest.mark.parametrize(("content", "said"), [(b"", "no run"), (b"\x00\xff" * 500, "no run"), (None, "No such file")])
def test_a_text_without_a_run_is_refused(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_logs(path)

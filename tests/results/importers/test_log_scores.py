"""The evaluation that a score line belongs to, and rows from logs that end early."""

import time
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
        ([], 20_000, "plain"),  # 10, and no better than the float weights, in a log that mentions no window
        ([], None, "plain"),
        (["eval_stride:256"], 20_000, None),  # 10: a slow plain one, or stride 256
        (["eval_stride:256"], None, None),
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
    scored = made.score("final_int6_roundtrip", 1.93328889, 1.14500258 * 1.17, rest=" eval_time:2000ms")
    run = made.read_one(tmp_path, made.header(), made.training(), made.artifact(), scored)
    assert "bpb per nat 0.69294, but the published split has 0.59226" in str(run.columns["notes"])
    assert run.get("scored_bytes") is None


EXPORT = made.artifact()


@pytest.mark.parametrize(
    ("between", "scored", "column", "label", "why"),
    [
        # epochs over the validation text, before or after the export
        (["prequant_ttt:epoch 1/21 lr=0.0005 loss=2.89", *EXPORT], made.PLAIN, "post_quant_bpb", "final_int6_roundtrip",
         "trained on the validation text"),
        ([*EXPORT, "ttt_epoch:3/3 loss:1.9 time:55.1s"], made.SLIDING, "sliding_bpb", "final_int6_sliding_window",
         "trained on the validation text"),
        ([*EXPORT, "ttt:phase1_norm:epoch:1/50 lr:0.010000 loss:1.9446"], made.SLIDING, "sliding_bpb",
         "final_int6_sliding_window", "trained on the validation text"),
        ([*EXPORT, "lora_ttt_batched: short=2393 long=3857 batch=64 rank=8 lr=0.01 epochs=3 chunk=256"],
         made.score("ttt_final", 1.8843, 1.1160), "ttt_bpb", "ttt_final", "trained on the validation text"),
        ([*EXPORT, "legal_ttt: 3 passes, 7752704 tokens/rank, lr=0.0005"], made.score("legal_ttt", 1.8843, 1.1160),
         "ttt_bpb", "legal_ttt", "trained on the validation text"),
        ([*EXPORT, *made.TTT[:3]], made.PLAIN, "post_quant_bpb", "final_int6_roundtrip", "test-time training began"),
        ([*EXPORT, "ttt:rank0 short=840 long=5410 epochs=3 batch=64"], made.score("final_ttt_lora", 1.9, 1.12),
         "ttt_bpb", "final_ttt_lora", "trained on the validation text"),
        # another model joins
        ([*EXPORT, "sliding_eval:ngram order=7 alpha=0.2"], made.SLIDING, "sliding_bpb", "final_int6_sliding_window",
         "another model is mixed in"),
        ([*EXPORT, made.TTT_BEGIN, "hedge_mixer:enabled K=5"], made.score("legal_ttt", 1.9, 1.12), "ttt_bpb", "legal_ttt",
         "another model is mixed in"),
        (EXPORT, made.score("final_sliding_window+slot8steps", 1.86, 1.1045), "sliding_bpb",
         "final_sliding_window+slot8steps", "mixes in another model"),
        (EXPORT, made.score("ppm_sliding", 1.86, 1.1045), "sliding_bpb", "ppm_sliding", "mixes in another model"),
        (EXPORT, made.score("quantized_sliding_wobble", 1.86, 1.1045), "sliding_bpb", "quantized_sliding_wobble",
         "the word wobble of its label is unknown"),
        # weights that are not quantized
        ([], ["DIAGNOSTIC post_ttt val_loss:1.8 val_bpb:1.1200 eval_time:5842ms", *EXPORT], "ttt_bpb",
         "DIAGNOSTIC post_ttt", "not quantized"),
        ([], ["post-prequant-ttt val_loss:1.8 val_bpb:1.1200 eval_time:5842ms", *EXPORT], "ttt_bpb", "post-prequant-ttt",
         "not quantized"),
        (EXPORT, made.score("pre_quant_sliding_window", 1.86, 1.1145), "sliding_bpb", "pre_quant_sliding_window",
         "not quantized"),
        # too good for its name
        (EXPORT, made.score("final_int6_sliding_window", 1.51, 0.8959, rest=" stride:64"), "sliding_bpb",
         "final_int6_sliding_window", "more than sliding can give"),
        (EXPORT, made.score("legal_ttt", 1.1, 0.6712), "ttt_bpb", "legal_ttt", "more than ttt can give"),
        (EXPORT, made.score("final_int6_roundtrip", 1.86, 1.1079, rest=" eval_time:2000ms"), "post_quant_bpb",
         "final_int6_roundtrip", "more than quantization can give"),
    ],
)  # fmt: skip
def test_a_score_that_does_not_belong_in_a_column_is_other_bpb(
    between: list[str], scored: list[str], column: str, label: str, why: str, tmp_path: Path
) -> None:
    run = made.read_one(tmp_path, made.header(), made.training(), made.POST_EMA, between, scored)
    value = float(scored[0].split("val_bpb:")[1].split()[0])
    assert run.get(column) is None
    assert run.get("other_bpb") == pytest.approx(value, abs=5.1e-5)
    assert run.columns["other_label"].startswith(f"{label}: ")  # type: ignore[union-attr]
    assert why in run.columns["other_label"]  # type: ignore[operator]
    assert why in run.nulls[column]
    assert str(tmp_path) in run.nulls[column]
    assert run.get("float_bpb") == 1.1369
    made.assert_sources_hold(run)


@pytest.mark.parametrize(
    "between",
    [
        ["ngram_eval: enabled=False order=7"],
        ["ttt_burst:epoch:1/2 avg_loss:2.1"],  # repeats training batches
        ["ttt: pre-compiling forward+backward kernels..."],
    ],
)
def test_lines_that_do_not_change_the_evaluation(between: list[str], tmp_path: Path) -> None:
    parts = (made.header(), made.training(), made.POST_EMA, EXPORT, made.PLAIN, between, made.SLIDING)
    run = made.read_one(tmp_path, *parts)
    assert (run.get("post_quant_bpb"), run.get("sliding_bpb"), run.get("other_bpb")) == (1.14500258, 1.12156083, None)


def test_a_score_that_nothing_confirms_is_refused_if_no_model_reaches_it(tmp_path: Path) -> None:
    run = made.read_one(tmp_path, made.header(), EXPORT, made.score("final_ttt_lora", 0.5, 0.2966))
    assert (run.get("ttt_bpb"), run.get("other_bpb")) == (None, 0.2966)
    assert "no other score confirms it" in run.nulls["ttt_bpb"]


@pytest.mark.parametrize(
    "piece", ["ttt ", "ttt:start ", "qat on ", "a:1 ", "1,", "sliding val_bpb:", "[rank0] ", ".", "=", " epochs=1"]
)
def test_a_hostile_line_takes_no_time(piece: str, tmp_path: Path) -> None:
    lines = [(piece * 999)[:999]] * 200
    began = time.process_time()
    made.read_one(tmp_path, made.header(), made.training()[:3], lines)
    assert time.process_time() - began < 2.0


def test_a_float_score_of_other_weights_than_the_exported_ones_is_refused(tmp_path: Path) -> None:
    ema = ["DIAGNOSTIC post_ema val_loss:2.4 val_bpb:1.4665"]
    run = made.read_one(tmp_path, made.header(), made.training(), ema, EXPORT, made.PLAIN)
    assert (run.get("float_bpb"), run.get("post_quant_bpb"), run.get("quant_gap")) == (None, 1.14500258, None)
    assert "other weights were exported" in run.nulls["float_bpb"]


def test_the_artifact_of_the_scored_codec_counts(tmp_path: Path) -> None:
    both = [*made.artifact("int8+zlib", 21_410_856, 63_056)[2:], *made.artifact("int6+zstd", 17_482_082, 63_056)]
    scored = made.score("final_int6_zstd_roundtrip", 1.95, 1.1449, rest=" eval_time:2000ms")
    run = made.read_one(tmp_path, made.header(), made.training(), both, scored)
    assert (run.get("artifact_bytes"), run.get("model_bytes")) == (17_545_138, 17_482_082)


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

"""Logs of the train_gpt.py family: values, nulls, and the lines that they come from."""

import math
from pathlib import Path
from typing import Any

import pytest

from results.importers import read_logs
from tests.results import foreign_logs as made


@pytest.mark.skipif(not made.REAL.is_dir(), reason="the logs of PR 975 are not here")
@pytest.mark.parametrize(
    ("name", "float_bpb", "post_quant", "sliding", "gap", "num_bytes", "steps", "qat_on", "within"),
    [
        ("run1_base", 1.1369, 1.14500258, 1.12156083, 0.0081, 15_932_176, 7173, 6646, True),
        ("run2_qna", 1.1382, 1.14565730, 1.12219171, 0.0075, 15_949_548, 7167, 6640, True),
        ("run3_qna_sqwa", 1.1464, 1.14919110, 1.12579977, 0.0028, 16_145_336, 6736, 6500, False),
    ],
)
def test_the_logs_of_pr_975(
    name: str, float_bpb: float, post_quant: float, sliding: float, gap: float, num_bytes: int, steps: int, qat_on: int,
    within: bool,
) -> None:  # fmt: skip
    (run,) = read_logs(made.REAL / f"{name}.log")
    c = run.columns
    assert (c["float_bpb"], c["post_quant_bpb"], c["sliding_bpb"]) == (float_bpb, post_quant, sliding)
    assert c["quant_gap"] == pytest.approx(gap, abs=5.1e-5)
    assert (c["artifact_bytes"], c["steps"], c["qat_on_step"], c["is_within_cap"]) == (num_bytes, steps, qat_on, within)
    assert (c["seed"], c["world_size"], c["hardware"]) == (42, 8, "NVIDIA H100 80GB HBM3 x8")
    assert (c["scored_tokens"], c["scored_bytes"], c["eval_stride"]) == (62_021_632, 151_080_363, 64)
    assert c["average"] == ("sqwa" if "sqwa" in name else "ema")
    assert "notes" not in c
    made.assert_sources_hold(run)


EXPECTED: dict[int, dict[str, Any]] = {
    51: {"seed": 1337, "raw_bpb": 1.2172, "post_quant_bpb": 1.22756928, "artifact_bytes": 15_863_489, "average": "lawa",
         "code_bytes": 47_642, "float_bpb": None, "sliding_bpb": None, "qat_on_step": None, "eval_s": 1.401},
    488: {"qat_on_step": 5950, "average": "ema", "float_bpb": 1.13691479, "post_quant_bpb": 1.14500258,
          "sliding_bpb": 1.12156083, "model_bytes": 13_240_000, "artifact_bytes": 13_300_000},
    549: {"float_bpb": 1.1369, "post_quant_bpb": 1.14500258, "sliding_bpb": 1.12156083, "ttt_bpb": 1.16771207,
          "qat_on_step": 6646, "artifact_bytes": 15_932_176, "peak_memory_mib": 21474.0, "eval_s": 537.616},
    975: {"float_bpb": 1.1369, "average": "sqwa", "torch_version": "2.9.1+cu128", "hardware": "NVIDIA H100 80GB HBM3 x8",
          "tokens": 7000 * 786_432, "train_s": 560.0, "step_ms": 80.0, "val_loss_nats": 1.93328889, "eval_stride": 64},
    1002: {"float_bpb": None, "raw_bpb": 1.1683, "post_quant_bpb": None, "sliding_bpb": 1.17029157, "average": "ema",
           "ttt_bpb": 1.16771207, "qat_on_step": None, "eval_stride": 64, "artifact_bytes": 15_899_385, "seed": 1},
    1032: {"seed": None, "raw_bpb": 1.1402, "float_bpb": 1.1389, "post_quant_bpb": 1.14500258, "steps": 943,
           "code_bytes": 102_953, "artifact_bytes": 7_303_141, "average": None, "scored_bytes": None},
}  # fmt: skip


@pytest.mark.parametrize("number", made.PULL_REQUESTS)
def test_each_family(number: int, tmp_path: Path) -> None:
    run = made.read_one(tmp_path, made.family(number))
    found = {name: run.get(name) for name in EXPECTED[number]}
    assert found == EXPECTED[number]
    assert run.columns["status"] == "finished"
    assert "notes" not in run.columns
    made.assert_sources_hold(run)


@pytest.mark.parametrize(
    ("scored", "loss", "bpb"),
    [
        ([*made.PLAIN, *made.SLIDING], 1.93328889, 1.14500258),
        (made.SLIDING, 1.89370347, 1.12156083),  # only a sliding score: val_loss_nats is null, the ratio is known
    ],
)
def test_bytes_per_token_come_from_the_loss_and_bpb_of_one_line(
    scored: list[str], loss: float, bpb: float, tmp_path: Path
) -> None:
    run = made.read_one(tmp_path, made.header(), made.training(), made.artifact(), scored)
    assert run.get("bytes_per_token") == pytest.approx(loss / math.log(2) / bpb, rel=1e-12)
    made.assert_sources_hold(run)


PREFIXES = (
    "[default0]:", "[rank0]: ", "2026-04-30T20:17:12Z ", "[2026-03-23 04:39:13] INFO: ", "[05:37:23] ", "1776143353.675 ",
    "2026-04-29 18:41:29+08:00 ",
)  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("number", [549, 1002])
def test_a_launcher_or_logger_writes_before_each_line(prefix: str, number: int, tmp_path: Path) -> None:
    lines = [line for line in made.family(number) if not line.startswith(("|", "="))]
    plain = made.read_one(tmp_path, lines)
    assert made.read_one(tmp_path, [prefix + line for line in lines]).columns == plain.columns


def test_the_log_with_a_list_of_settings(tmp_path: Path) -> None:
    lines = [
        "Hyperparameters:", "  eval_stride: 64", "  seed: 1337", "  world_size: 8", made.RULER,
        "Running Python 3.12.3 (main)", made.RULER, "model_params:35944536",
        "0/20000 val_loss: 9.0087 val_bpb: 3.4876", "4500/20000 train_loss: 2.8 train_time: 9.6m tok/s: 6136013",
        "4598/20000 val_loss: 2.8100 val_bpb: 1.0878",
        "stopping_early: wallclock_cap train_time: 588040ms step: 4598/20000", "ema:applying EMA weights",
        "diagnostic pre-quantization post-ema val_loss:2.80657349 val_bpb:1.08651206 eval_time:7266ms",
        "Code size (uncompressed): 51362 bytes", "Code size (compressed): 17001 bytes",
        "Serialized model quantized+brotli: 15972119 bytes", "Total submission size quantized+brotli: 15989120 bytes",
        "diagnostic quantized val_loss:2.83554791 val_bpb:1.09772896 eval_time:25629ms",
        "ttt_phased: total_docs:50000 prefix_docs:2500 num_phases:3", "tttg: c1/131 lr:0.001 t:0.4s",
        "quantized_ttt_phased val_loss:2.78859734 val_bpb:1.07955293 eval_time:464754ms",
    ]  # fmt: skip
    run = made.read_one(tmp_path, lines)
    expected = {
        "seed": 1337, "world_size": 8, "steps": 4598, "train_s": 588.04, "raw_bpb": 1.0878, "float_bpb": 1.08651206,
        "post_quant_bpb": 1.09772896, "ttt_bpb": 1.07955293, "code_bytes": 17001, "artifact_bytes": 15_989_120,
        "eval_s": 490.383, "other_bpb": None, "sliding_bpb": None,
    }  # fmt: skip
    assert {name: run.get(name) for name in expected} == expected


def test_short_names(tmp_path: Path) -> None:
    lines = [
        "params:26993756 ws:8 ga:1 s:42", "s:0/20000 vl:6.93 bpb:4.1 tt:0ms sa:0.01ms", "s:1/20000 tl:6.9 tt:90ms sa:90.0ms",
        "s:6000/20000 vl:1.92 bpb:1.1379 tt:600000ms sa:100.00ms", "peak_mem: 21474 MiB",
        "q_rt vl:1.9333 bpb:1.1450 t:6775ms", "q_rt_x vl:1.93328889 bpb:1.14500258",
        "q_sw vl:1.8937 bpb:1.1216 s:64 t:74797ms", "q_sw_x vl:1.89370347 bpb:1.12156083",
        "ttt vl:1.8826 bpb:1.1150 t:568529ms", "ttt_x vl:1.88264755 bpb:1.11501287",
    ]  # fmt: skip
    run = made.read_one(tmp_path, lines)
    expected = {
        "steps": 6000, "step_ms": 100.0, "raw_bpb": 1.1379, "post_quant_bpb": 1.14500258, "sliding_bpb": 1.12156083,
        "ttt_bpb": 1.11501287, "num_params": 26_993_756, "peak_memory_mib": 21474.0, "eval_s": 650.101,
    }  # fmt: skip
    assert {name: run.get(name) for name in expected} == expected


def test_scores_in_words(tmp_path: Path) -> None:
    lines = ["Quantized BPB: 1.145003", "  Sliding BPB:   1.121561", "  TTT BPB:      1.115013"]
    run = made.read_one(tmp_path, made.header(), made.training(), made.POST_EMA, made.artifact(), lines)
    found = [run.get(name) for name in ("post_quant_bpb", "sliding_bpb", "ttt_bpb")]
    assert found == [1.145003, 1.121561, 1.115013]


QAT_LINES = [
    ("late_qat:enabled bits=6 embed_bits=8 at step 5000 scale=0.15", 5000),
    ("step:5000 QAT activated (time_frac=0.85, scale=0.15)", 5000),
    ("qat:enabled from step 5000 attn=6bit", 5000),
    ("ste_qat:enabled at step=5000 frac=0.75 quant_bits=6", 5000),
    (">>> QAT mixed int5/int6 enabled at step 5000", 5000),
    ("QAT enabled: int6 at step 5000 (fraction=0.85)", 5000),
    ("late_qat:disabled step:5000", None),
]


@pytest.mark.parametrize(("line", "step"), QAT_LINES)
def test_the_step_at_which_qat_began(line: str, step: int | None, tmp_path: Path) -> None:
    run = made.read_one(tmp_path, made.header(), made.training(during=(line,)), made.PLAIN)
    assert run.get("qat_on_step") == step


@pytest.mark.parametrize("line", ["qat:enabled mlp=INT6", "QAT enabled: int6 STE fake-quantization during training"])
def test_qat_that_is_on_before_the_first_step_begins_at_step_0(line: str, tmp_path: Path) -> None:
    run = made.read_one(tmp_path, made.header(), [line], made.training(), made.PLAIN)
    assert run.columns["qat_on_step"] == 0
    assert run.sources["qat_on_step"].endswith(f":{len(made.header()) + 1}")
    late = made.read_one(tmp_path, made.header(), made.training(during=(line,)), made.PLAIN)
    assert late.get("qat_on_step") is None
    assert "gives no step" in late.nulls["qat_on_step"]


def test_a_dump_ends_with_the_last_statement_and_one_import_is_no_dump(tmp_path: Path) -> None:
    end = ['if __name__ == "__main__":', "    main()", ""]
    run = made.read_one(tmp_path, made.SOURCE, end, made.training(), made.PLAIN, ["import torch"], made.SLIDING)
    assert (run.get("steps"), run.get("post_quant_bpb"), run.get("sliding_bpb")) == (7000, 1.14500258, 1.12156083)


def test_a_run_without_any_average_exports_its_last_weights(tmp_path: Path) -> None:
    run = made.read_one(tmp_path, made.header(), made.training(), made.artifact(), made.PLAIN)
    assert (run.get("average"), run.get("float_bpb")) == ("last", run.get("raw_bpb"))


def test_the_average_is_not_guessed_if_the_log_mentions_one_or_has_no_header(tmp_path: Path) -> None:
    for parts in (
        (made.header(), ["swa:start step:250"], made.training(), made.PLAIN),
        (made.training(), made.PLAIN),
    ):
        run = made.read_one(tmp_path, *parts)
        assert run.get("average") is None
        assert run.get("float_bpb") is None
        assert "quant_gap" in run.nulls


def test_appended_runs_and_their_source_dumps(tmp_path: Path) -> None:
    first = [*made.environment(), *made.header(1), *made.training(500), *made.artifact(), *made.PLAIN, *made.SLIDING]
    second = [*made.environment(1), *made.header(2, world=1), *made.training(600), *made.artifact(), *made.SLIDING]
    path = made.write(tmp_path / "train.log", made.SOURCE, first, made.SOURCE, second)
    one, two = read_logs(path)
    assert (one.get("seed"), one.get("steps"), one.get("post_quant_bpb")) == (1, 500, 1.14500258)
    assert (two.get("seed"), two.get("steps"), two.get("sliding_bpb"), two.get("post_quant_bpb")) == (
        2,
        600,
        1.12156083,
        None,
    )
    assert two.get("hardware") == "NVIDIA H100 80GB HBM3 x1"
    start = len(made.SOURCE) + 2  # a ruler, then the environment
    assert one.label == f"{path}:{start}-{len(made.SOURCE) + len(first)}"
    for run in (one, two):
        made.assert_sources_hold(run)


@pytest.mark.parametrize("number", made.PULL_REQUESTS)
def test_runs_in_one_captured_output(number: int, tmp_path: Path) -> None:
    lines = made.family(number)
    runs = read_logs(made.write(tmp_path / "out.txt", lines, lines, lines))
    alone = made.read_one(tmp_path, lines)
    assert [run.columns for run in runs] == [alone.columns] * 3
    assert len({run.digest for run in runs}) == 1


def test_a_run_that_crashed_before_training_is_a_row_of_its_own(tmp_path: Path) -> None:
    crashed = [*made.environment(), *made.header(1), "Traceback (most recent call last):"]
    one, two = read_logs(made.write(tmp_path / "a.log", crashed, made.family(975)))
    assert (one.get("status"), two.get("status")) == ("failed", "finished")
    assert "traceback" in str(one.get("reason"))
    assert (two.get("seed"), two.get("post_quant_bpb")) == (42, 1.14500258)


def test_a_step_line_with_a_broken_number_is_read_without_it(tmp_path: Path) -> None:
    broken = "step:5000/20000 train_loss:1.96.76 train_time:400000ms step_avg:80.00ms"
    lines = made.training(during=(broken,))
    run = made.read_one(tmp_path, made.header(), lines, made.artifact(), made.PLAIN)
    assert (run.get("status"), run.get("steps")) == ("finished", 7000)

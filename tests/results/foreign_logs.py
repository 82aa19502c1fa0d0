"""Small logs in the formats of the train_gpt.py family, written line by line for the tests of the importer."""

import re
from pathlib import Path

import pytest

from pgray.cli.entry import main
from results.importers import ImportedRun, read_logs
from results.importers.imported_run import BY_IMPORT
from results.schema import NAMES

REAL = Path(__file__).parents[3] / "shared/data/logs/975"
PULL_REQUESTS = (51, 488, 549, 975, 1002, 1032)
RULER = "=" * 100
SOURCE = '''"""A script. Its last run:
final_int6_roundtrip_exact val_loss:0.11111111 val_bpb:0.22222222
"""
import os
step:1/2 train_loss:9.0000 train_time:1ms step_avg:1.00ms
seed = int(os.environ.get("SEED", 99))
        log0(f"final_int8_zlib_roundtrip_exact val_loss:{q_val_loss:.8f} val_bpb:{q_val_bpb:.8f}")
'''.splitlines()


def environment(gpus: int = 8, torch: str = "2.9.1+cu128") -> list[str]:
    gpu = "|   {0}  NVIDIA H100 80GB HBM3          On  |   00000000:{0}9:00.0 Off |                    0 |"
    rows = [gpu.format(i) for i in range(gpus)]
    return [RULER, "Running Python 3.12.3 (main, Nov  6 2025)", f"Running PyTorch {torch}", "Fri Mar 27", *rows, RULER]


def header(seed: int | None = 42, world: int = 8, tokens: int = 62_021_632, batch: int = 786_432) -> list[str]:
    return [
        "val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=./data/tokenizers/fineweb_1024_bpe.model",
        "train_loader:dataset:fineweb10B_sp1024 train_shards:80",
        f"val_loader:shards pattern=./data/datasets/fineweb10B_sp1024/fineweb_val_*.bin tokens:{tokens}",
        "model_params:26993756",
        f"world_size:{world} grad_accum_steps:1",
        "attention_mode:gqa num_heads:8 num_kv_heads:4",
        f"train_batch_tokens:{batch} train_seq_len:2048 iterations:20000 warmup_steps:2 max_wallclock_seconds:600.000",
        *([] if seed is None else [f"seed:{seed}"]),
        "warmup_step:1/2",
        "warmup_step:2/2",
    ]


def training(steps: int = 7000, raw: str = "1.1379", step_ms: str = "80.00", during: tuple[str, ...] = ()) -> list[str]:
    """Training up to the wall clock, with the last validation at the last step."""
    ms = round(steps * float(step_ms))
    return [
        "step:0/20000 val_loss:6.9297 val_bpb:4.1042 train_time:0ms step_avg:0.01ms",
        "step:1/20000 train_loss:6.9319 train_time:131ms step_avg:131.21ms",
        f"step:4000/20000 train_loss:1.9676 train_time:{round(4000 * float(step_ms))}ms step_avg:{step_ms}ms",
        *during,
        f"step:{steps - 100}/20000 train_loss:1.7883 train_time:{ms - 8000}ms step_avg:{step_ms}ms",
        f"step:{steps}/20000 val_loss:1.9213 val_bpb:{raw} train_time:{ms}ms step_avg:{step_ms}ms",
        f"stopping_early: wallclock_cap train_time:{ms}ms step:{steps}/20000",
        "peak memory allocated: 21474 MiB reserved: 22012 MiB",
    ]


def artifact(codec: str = "int6+lzma", model: int = 15_842_996, code: int = 89_180) -> list[str]:
    return [
        "Serialized model: 106158518 bytes",
        f"Code size: {code} bytes",
        f"Serialized model {codec}: {model} bytes",
        f"Total submission size {codec}: {model + code} bytes",
    ]


def score(label: str, loss: float, bpb: float, rounded: bool = True, exact: bool = True, rest: str = "") -> list[str]:
    """A score line and its exact twin."""
    lines = [f"{label} val_loss:{loss:.4f} val_bpb:{bpb:.4f}{rest}"] if rounded else []
    return lines + ([f"{label}_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}"] if exact else [])


PLAIN = score("final_int6_roundtrip", 1.93328889, 1.14500258, rest=" eval_time:6775ms")
SLIDING = score("final_int6_sliding_window", 1.89370347, 1.12156083, rest=" stride:64 eval_time:74797ms")
DUPLICATE = score("final_int8_zlib_roundtrip", 1.89370347, 1.12156083, rounded=False)
POST_EMA = ["ema:applying EMA weights", "DIAGNOSTIC post_ema val_loss:1.9196 val_bpb:1.1369 eval_time:2007ms"]
TTT_BEGIN = "ttt_sliding:start chunks=1893 chunk_tokens=32768 total_windows=969088 stride=64 ttt_lr=0.002"
TTT = [
    TTT_BEGIN,
    "  ttt_chunk [1/1893] bpb=1.300000 time=0.5s",
    "  ttt_chunk [1893/1893] bpb=1.167712 time=455.0s",
    "ttt_sliding:done val_loss=1.971628 val_bpb=1.167712 elapsed=455.5s",
    *score("legal_ttt", 1.97162769, 1.16771207, rest=" eval_time:456044ms"),
]


def family(number: int) -> list[str]:
    """A whole run as the script of that pull request logs it."""
    late_qat = ("late_qat:enabled step:6646 scale:0.1499",)
    match number:
        case 51:
            return [
                *header(1337), *training(raw="1.2172"), "LAWA: using averaged weights from 12 warmdown steps",
                "Serialized model: 67224983 bytes", "Code size: 47642 bytes", "Total submission size: 67272625 bytes",
                "Serialized model int8+zlib: 15815847 bytes (payload:17178912 raw_torch:17224025 payload_ratio:3.91x)",
                "Total submission size int8+zlib: 15863489 bytes",
                *score("final_int8_zlib_roundtrip", 2.07269931, 1.22756928, rest=" eval_time:1401ms"),
            ]  # fmt: skip
        case 488:
            during = (
                "step:4500/20000 train_loss:2.1 train_time:360000ms step_avg:80.00ms outlier_penalty:0.000123",
                "QAT activated at step 5950 (progress=0.850, qat_start_frac=0.85)",
                "SWA checkpoint 1/7 collected at step 6000 (scale=0.4000)",
                "EMA: initialized at step 6100 (progress=0.870, decay=0.995)",
            )
            return [
                *header(), "int6_scale_mode:group int6_scale_group_rows:8", *training(during=during),
                "SWA: averaging 7 checkpoints with final model", "EMA: loading smoothed weights (decay=0.995)",
                *score("final_prequant", 1.91963300, 1.13691479), "Serialized model: 106158518 bytes",
                "Code size: 60000 bytes", "Serialized model int6 raw_bytes:21000000",
                "int6_payload_components quant_weight_bytes:20000000 scale_meta_bytes:900000 payload_bytes:21000000",
                "Serialized model int6+zstd: 13240000 bytes", "Total submission size int6+zstd: 13300000 bytes",
                *PLAIN, *SLIDING,
            ]  # fmt: skip
        case 549:
            return [*header(), *training(during=late_qat), *POST_EMA, *artifact(), *PLAIN, *SLIDING, *DUPLICATE, *TTT]
        case 975:
            sqwa = ["qna_enabled:True qna_magnitude:1.0", "sqwa_enabled:True"]
            average = ["sqwa:applying SQWA averaging count=6", POST_EMA[1]]
            duplicate = [line.replace("int8_zlib", "int6_lzma") for line in DUPLICATE]
            during = ("sqwa:start step:6450", *late_qat)
            return [
                *environment(), *header(), *sqwa, *training(during=during), *average, *artifact(), *PLAIN, *SLIDING,
                *duplicate,
            ]  # fmt: skip
        case 1002:
            during = (
                "qat:ema_reset (EMA will restart from current QAT weights)",
                "qat:enabled mlp=INT4(clip=7) attn=INT6(clip=31) bigram=INT4(clip=7)",
            )
            return [
                *environment(), *header(1), "qat:late_qat threshold=0.9 (activates when lr_scale < threshold)",
                *training(raw="1.1683", during=during), "swa:applying averaged 12 checkpoints", "ema:applying (decay=0.997)",
                "Serialized model: 117337619 bytes", "Code size: 78582 bytes", "Total uncompressed: 117416201 bytes",
                "Serialized model int5mlp+int6attn+zstd: 15820803 bytes", "Total submission size: 15899385 bytes",
                "final_eval_mode:sliding_window stride:64 batch_seqs:32",
                "  sliding_eval [ 50.0%] 30000/60578 windows running_bpb=1.170000",
                *score("final_int8_zlib_roundtrip", 1.97598306, 1.17029157, rest=" eval_time:217786ms"), *TTT,
            ]  # fmt: skip
        case 1032:
            first, *rest = artifact(model=7_200_188, code=102_953)
            stdout = [line for line in header(None) if line.startswith("val_bpb")]
            return [
                *stdout, *training(steps=943, raw="1.1402", step_ms="636.81", during=("swa:start step:250", *late_qat)),
                "svd_compress: 12 matrices", "DIAGNOSTIC post_ema val_loss:1.9230 val_bpb:1.1389 eval_time:15592ms",
                "  Layer 3: val_bpb=1.5000 delta=+0.0335", first, *rest[1:], *PLAIN, *SLIDING, *DUPLICATE,
            ]  # fmt: skip
    raise ValueError(number)


def write(path: Path, *parts: list[str]) -> Path:
    path.write_text("\n".join(line for part in parts for line in part) + "\n")
    return path


def read_one(path: Path, *parts: list[str]) -> ImportedRun:
    (run,) = read_logs(write(path / "run.log", *parts))
    return run


def imported(run: Path, log: Path, arm: str, *more: str) -> int:
    """The exit code of `pgray import`."""
    return main(["import", str(log), "--into", str(run), "--arm", arm, *more])


def assert_sources_hold(run: ImportedRun) -> None:
    """Check that every column has a value or a reason, and that every value is on its line or derived."""
    assert set(run.columns) | set(run.nulls) == set(NAMES) - set(BY_IMPORT)
    assert not set(run.columns) & set(run.nulls)
    assert set(run.sources) == set(run.columns)
    assert all(run.nulls.values())
    derived = {
        "failure_kind",
        "quant_gap",
        "is_within_cap",
        "tokens",
        "scored_bytes",
        "bytes_per_token",
        "other_label",
        "status",
        "reason",
        "notes",
        "average",
        "hardware",
    }
    for column, source in run.sources.items():
        file, _, numbers = source.rpartition(":")
        lines = Path(file).read_text().split("\n")
        text = " ".join(lines[int(number) - 1] for number in numbers.split(","))
        value = run.columns[column]
        if column in derived or (column == "code_bytes" and "," in numbers):
            assert text.strip()
        elif column in ("train_s", "eval_s"):
            assert sum({int(ms) for ms in re.findall(r"time:(\d+)ms", text)}) == pytest.approx(1000 * float(value))
        elif isinstance(value, (int, float)):
            assert float(value) in [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)], column
        else:
            assert str(value) in text

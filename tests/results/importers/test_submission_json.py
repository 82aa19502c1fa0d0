"""submission.json files as people write them: wrong units, placeholders, unclear keys."""

import json
from pathlib import Path
from typing import Any

import pytest

from results.importers import ImportedRun, read_logs


def submission(path: Path, **content: Any) -> ImportedRun:
    (path / "submission.json").write_text(json.dumps(content, indent=2))
    (run,) = read_logs(path / "submission.json")
    return run


CLAIMS = (
    "val_bpb", "val_bpb_exact", "val_bpb_mean", "mean_val_bpb", "val_bpb_3seed_mean", "val_bpb_avg", "best_val_bpb",
    "final_val_bpb", "average_val_bpb", "bpb", "mean_bpb", "best_bpb", "final_bpb", "three_seed_mean_bpb", "validation_bpb",
)  # fmt: skip


@pytest.mark.parametrize("key", CLAIMS)
def test_a_bpb_of_unknown_evaluation_is_a_claim_not_a_column(key: str, tmp_path: Path) -> None:
    run = submission(tmp_path, name="x", **{key: "1.1216"})
    assert run.claimed_bpb == 1.1216
    assert run.columns["notes"] == "claims 1.1216 bpb without saying how it was evaluated"
    assert run.sources["notes"].endswith("submission.json:3")
    assert not {"post_quant_bpb", "sliding_bpb", "ttt_bpb", "float_bpb"} & set(run.columns)


@pytest.mark.parametrize(
    ("content", "columns", "nulls"),
    [
        ({"bytes_total": "15,932,176"}, {"artifact_bytes": 15_932_176}, {}),
        ({"bytes_total": "15932176 bytes"}, {"artifact_bytes": 15_932_176}, {}),
        ({"artifact_bytes": 15932176.0}, {"artifact_bytes": 15_932_176}, {}),
        ({"bytes_total": None}, {}, {"artifact_bytes": "bytes_total is null"}),
        ({"bytes_total": 0}, {}, {"artifact_bytes": "placeholder"}),
        ({"bytes_total": -1}, {}, {"artifact_bytes": "placeholder"}),
        ({"bytes_total": 15.93}, {}, {"artifact_bytes": "too small for bytes"}),
        ({"bytes_total": "15.93 MB"}, {}, {"artifact_bytes": "not a number"}),
        ({"bytes_total": 100000, "artifact_bytes": 200000}, {}, {"artifact_bytes": "given as 100000"}),
        ({"val_bpb": "TBD"}, {"status": "failed"}, {}),
        ({"val_bpb": 0}, {"status": "failed"}, {}),
        ({"bytes_model_int6_lzma": 9000, "bytes_code": 1000}, {"model_bytes": 9000, "code_bytes": 1000}, {}),
        ({"sliding_val_bpb": 1.1, "roundtrip_val_bpb": 1.13}, {"sliding_bpb": 1.1, "post_quant_bpb": 1.13}, {}),
        ({"roundtrip_val_bpb": 1.13}, {}, {"post_quant_bpb": "may be plain or sliding"}),
        ({"sliding_val_bpb": 1.1, "int6_roundtrip_val_bpb": 1.1}, {}, {"post_quant_bpb": "may be plain or sliding"}),
        ({"pre_quant_val_bpb": 1.12}, {}, {"float_bpb": "raw or averaged weights, not stated"}),
        ({"post_ema_val_bpb": 1.12, "legal_ttt_bpb": 1.09}, {"float_bpb": 1.12, "ttt_bpb": 1.09}, {}),
        ({"seeds": [1, 2, 3], "val_bpb": 1.1}, {}, {"seed": "3 seeds together"}),
        (
            {"train_time_ms": 600108, "step_stop": 7173, "gpu": " 8xH100 "},
            {"train_s": 600.108, "hardware": "8xH100"},
            {},
        ),
    ],
)
def test_submission_keys(
    content: dict[str, Any], columns: dict[str, Any], nulls: dict[str, str], tmp_path: Path
) -> None:
    run = submission(tmp_path, **content)
    assert {name: run.get(name) for name in columns} == columns
    for column, reason in nulls.items():
        assert run.get(column) is None
        assert reason in run.nulls[column]


@pytest.mark.parametrize(
    "content",
    [
        {"model_params": 5, "seed_results": {"42": {"val_bpb": 1.1, "steps": 10}, "7": {"val_bpb": 1.2, "steps": 11}}},
        {
            "model_params": 5,
            "seeds": [{"seed": 42, "val_bpb": 1.1, "steps": 10}, {"seed": 7, "val_bpb": 1.2, "steps": 11}],
        },
        {"model_params": 5, "seed_42": {"val_bpb": 1.1, "steps": 10}, "seed_7": {"val_bpb": 1.2, "steps": 11}},
    ],
)
def test_a_submission_that_lists_its_seeds(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(content, indent=1))
    runs = read_logs(path)
    assert [(r.get("seed"), r.claimed_bpb, r.get("steps"), r.get("num_params")) for r in runs] == [
        (42, 1.1, 10, 5),
        (7, 1.2, 11, 5),
    ]
    lines = path.read_text().split("\n")
    for run in runs:
        assert f'"steps": {run.get("steps")}' in lines[int(run.sources["steps"].rpartition(":")[2]) - 1]

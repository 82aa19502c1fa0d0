"""The columns are the ones promised, and every number of a result finds its column."""

import subprocess
import sys

import pytest

from results.schema import COLUMNS, NAMES, frame, listed_scores, records
from trainer.records.results import TrialResult

CONTRACT = """
sweep arm seed trial_id train_fingerprint status failure_kind reason source
float_bpb post_quant_bpb quant_gap sliding_bpb ttt_bpb val_loss_nats raw_bpb
artifact_bytes model_bytes code_bytes is_within_cap entropy_bytes
steps train_s step_ms tokens eval_s export_s wall_s gpu_held_s cost_usd qat_on_step qat_coverage qat_is_live
num_params peak_memory_mib world_size hardware node torch_version git_sha data_sha tokenizer_sha schema_version
"""
PROMISED = CONTRACT.split()


def test_promised_columns_in_their_order() -> None:
    assert [column.name for column in COLUMNS if column.in_contract] == PROMISED
    assert list(NAMES[: len(PROMISED)]) == PROMISED
    assert len(set(NAMES)) == len(NAMES)


def test_every_scalar_of_a_result_has_a_column() -> None:
    lists = {"tensors", "antilayer"}
    assert set(TrialResult.model_fields) - lists <= set(NAMES)


def test_empty_frame_is_typed() -> None:
    empty = frame([])
    assert list(empty.columns) == list(NAMES)
    assert {c.name: str(empty[c.name].dtype) for c in COLUMNS} == {c.name: c.dtype for c in COLUMNS}


def test_null_is_null_and_never_zero() -> None:
    row = frame([{"arm": "a"}, {"arm": "b", "steps": 0, "qat_is_live": False, "float_bpb": 2.5}])
    assert row["steps"].isna().tolist() == [True, False]
    assert row["qat_is_live"].tolist()[1] is False
    assert row["steps"].dtype == "Int64"
    assert records(row)[0]["steps"] is None
    assert records(row)[1]["steps"] == 0
    assert type(records(row)[1]["float_bpb"]) is float


def test_wrong_type_is_refused() -> None:
    with pytest.raises((TypeError, ValueError)):
        frame([{"arm": "a", "steps": 1.5}])


def test_importing_results_imports_no_pandas() -> None:
    code = "import sys, results, results.schema; sys.exit('pandas' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_functions_survive_imports_of_modules() -> None:
    imports = "import results, results.present.files, results.analysis.ablation"
    code = f"{imports}; assert callable(results.ablation) and callable(results.frontier)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_optional_score_is_listed_if_a_trial_has_it() -> None:
    always = ["float_bpb", "post_quant_bpb"]
    assert listed_scores(frame([{"arm": "a"}])) == always  # also without a value: it should have been measured
    assert listed_scores(frame([{"sliding_bpb": 1.2}, {}])) == [*always, "sliding_bpb"]
    assert listed_scores(frame([{"ttt_bpb": 1.1, "sliding_bpb": 1.2}])) == [*always, "sliding_bpb", "ttt_bpb"]

"""Records written by every version so far still load, and the present version cannot change unnoticed."""

import json
import shutil
from pathlib import Path

import pytest

import results
from trainer.records.layout import RunLayout
from trainer.records.record import SCHEMA_VERSION
from trainer.records.results import TrialResult

HERE = Path(__file__).parent
VERSIONS = sorted(int(path.stem.removeprefix("result_v")) for path in HERE.glob("result_v*.json"))


@pytest.mark.parametrize("version", VERSIONS)
def test_old_records_make_a_row(version: int, tmp_path: Path) -> None:
    raw = json.loads((HERE / f"result_v{version}.json").read_text())
    layout = RunLayout(tmp_path / "run")
    target = layout.trial(raw["trial_id"]).result
    target.parent.mkdir(parents=True)
    shutil.copy(HERE / f"result_v{version}.json", target)
    shutil.copy(HERE / f"ledger_v{version}.jsonl", layout.ledger)
    trials = results.load(layout.root)
    assert trials.attrs["problems"] == []
    row = trials.iloc[0]
    assert row["schema_version"] == version
    for name in ("float_bpb", "post_quant_bpb", "sliding_bpb", "artifact_bytes", "qat_on_step", "arm", "steps"):
        assert row[name] == {**raw, "arm": "int4-mlp+qat"}[name]


def test_the_present_version_has_its_files() -> None:
    assert VERSIONS[-1] == SCHEMA_VERSION


def test_a_changed_record_has_a_new_version() -> None:
    """Fails when a field came, went or was renamed without a new SCHEMA_VERSION, and without new files here."""
    raw = json.loads((HERE / f"result_v{SCHEMA_VERSION}.json").read_text())
    assert set(raw) == set(TrialResult.model_fields)

"""Writes result_v3.json and ledger_v3.jsonl: the records of version 2 with what version 3 added.

A new version gets a script and files of its own; the old files stay, since people's run folders hold such records.
"""

import json
from pathlib import Path
from typing import Any

from trainer.records.ledger import LedgerEntry, read_ledger
from trainer.records.record import SCHEMA_VERSION
from trainer.records.results import TrialResult

HERE = Path(__file__).parent
ADDED_TO_RESULT: dict[str, Any] = {
    "train_limit_s": 600.0,
    "initial_share": 0.001,
    "never_began": False,
    "artifact_sha256": "ab" * 32,
}
ADDED_TO_LEDGER: dict[str, Any] = {"config_sha": "0123456789"}


def result() -> TrialResult:
    old = json.loads((HERE / "result_v2.json").read_text())
    return TrialResult.model_validate({**old, **ADDED_TO_RESULT, "schema_version": SCHEMA_VERSION})


def ledger() -> list[LedgerEntry]:
    return [entry.model_copy(update=ADDED_TO_LEDGER) for entry in read_ledger(HERE / "ledger_v2.jsonl")[0]]


if __name__ == "__main__":
    assert SCHEMA_VERSION == 3, "this script wrote the files of version 3; write those of a new version with a new one"
    (HERE / "result_v3.json").write_text(result().model_dump_json(indent=1) + "\n")
    (HERE / "ledger_v3.jsonl").write_text(
        "".join(entry.model_dump_json(exclude_none=True) + "\n" for entry in ledger())
    )

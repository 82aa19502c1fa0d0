"""The ledger: what survives a kill in the middle of a line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgray.store.ledger import Ledger
from trainer.records.ledger import LedgerEntry


def entry(trial_id: str, state: str = "queued", at: float = 0.0) -> LedgerEntry:
    fields = {"sweep": "s", "arm": "a", "seed": 1, "train_fingerprint": "f"}
    return LedgerEntry.model_validate({"at": at, "trial_id": trial_id, "state": state, **fields})


def test_a_missing_ledger_is_empty(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "ledger.jsonl").states() == {}


def test_the_last_entry_gives_the_state_and_the_first_the_order(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(entry("b"), entry("a"))
    ledger.append(entry("b", "running"))
    ledger.append(entry("b", "finished"))
    assert [(name, e.state) for name, e in ledger.states().items()] == [("b", "finished"), ("a", "queued")]
    assert len(ledger.entries()) == 4


@given(cut=st.integers(1, 400))
def test_a_cut_off_end_loses_only_the_lines_that_were_cut(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.append(entry("a"), entry("b"), entry("c"))
    whole = path.read_bytes()
    left = whole[: max(0, len(whole) - cut)]
    path.write_bytes(left)
    survivors = [
        name for index, name in enumerate("abc") if len(left) >= len(b"\n".join(whole.split(b"\n")[: index + 1]))
    ]
    assert list(ledger.states()) == survivors
    ledger.append(entry("d"))
    assert list(ledger.states()) == [*survivors, "d"]


def test_invalid_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.append(entry("a"))
    with path.open("ab") as file:
        file.write(b'{"trial_id": 3}\n\n\xff\xfe\n[1, 2]\n')
    ledger.append(entry("b"))
    assert list(ledger.states()) == ["a", "b"]


def test_unknown_fields_of_a_newer_version_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps({**entry("a").model_dump(), "colour": "green"}) + "\n")
    assert list(Ledger(path).states()) == ["a"]

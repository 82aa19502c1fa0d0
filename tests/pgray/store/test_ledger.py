"""The ledger and the lock: what survives a kill in the middle of a line, and who may write."""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgray.execution.run_lock import OWNER, dead_drivers, hold_lock, is_held, owner_of
from pgray.store.ledger import Ledger
from trainer.errors import InputError
from trainer.records.ledger import LedgerEntry


def entry(trial_id: str, state: str = "queued", at: float = 0.0) -> LedgerEntry:
    fields = {"sweep": "s", "arm": "a", "seed": 1, "train_fingerprint": "f"}
    return LedgerEntry.model_validate({"at": at, "trial_id": trial_id, "state": state, **fields})


def test_no_ledger_is_an_empty_one(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "ledger.jsonl").states() == {}


def test_the_last_entry_is_the_state_and_the_first_the_place(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(entry("b"), entry("a"))
    ledger.append(entry("b", "running"))
    ledger.append(entry("b", "finished"))
    assert [(name, e.state) for name, e in ledger.states().items()] == [("b", "finished"), ("a", "queued")]
    assert len(ledger.entries()) == 4


@given(cut=st.integers(1, 400))
def test_a_cut_off_end_costs_what_was_cut_and_no_more(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
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


def test_rubbish_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.append(entry("a"))
    with path.open("ab") as file:
        file.write(b'{"trial_id": 3}\n\n\xff\xfe\n[1, 2]\n')
    ledger.append(entry("b"))
    assert list(ledger.states()) == ["a", "b"]


def test_fields_that_a_newer_version_writes_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps({**entry("a").model_dump(), "colour": "green"}) + "\n")
    assert list(Ledger(path).states()) == ["a"]


def _hold(root: Path, ready: Callable[[], None], done: "multiprocessing.synchronize.Event") -> None:
    with hold_lock(root):
        ready()
        done.wait(30)


def test_one_driver_at_a_time_and_the_other_is_told_who(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    root = tmp_path / "run"
    (tmp_path / "run").mkdir()
    (root / "ledger.jsonl").touch()
    holder = context.Process(target=_hold, args=(root, ready.set, done))
    holder.start()
    assert ready.wait(30)
    assert is_held(root)
    owner = owner_of(root)
    assert owner is not None
    assert owner["pid"] == holder.pid
    with pytest.raises(InputError, match=rf"held by process {holder.pid} on .* since "), hold_lock(root):
        pass
    holder.kill()
    holder.join()
    assert not is_held(root)
    with hold_lock(root):
        owner = owner_of(root)
        assert owner is not None
        assert owner["pid"] == os.getpid()
    assert owner_of(root) is None


def test_a_folder_that_was_made_only_to_be_locked_goes_again(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "runs" / "x"):
        pass
    assert not (tmp_path / "runs" / "x").exists()
    with hold_lock(tmp_path / "runs" / "y"):
        (tmp_path / "runs" / "y" / "ledger.jsonl").touch()
    assert (tmp_path / "runs" / "y" / "ledger.jsonl").exists()


def test_the_note_of_a_driver_knows_those_that_died_before_it(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").touch()  # a folder made only to be locked would be removed
    with hold_lock(tmp_path) as last:
        assert last is None
        first = (tmp_path / OWNER).read_bytes()
    (tmp_path / OWNER).write_bytes(first)  # as after a SIGKILL
    with hold_lock(tmp_path, "stop") as last:
        assert last == json.loads(first)
        second = (tmp_path / OWNER).read_bytes()
    (tmp_path / OWNER).write_bytes(second)
    with hold_lock(tmp_path) as last:
        assert [driver["verb"] for driver in dead_drivers(last)] == ["stop", "run"]

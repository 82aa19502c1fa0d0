"""The lock of a run folder: only one driver may hold it, and its note names the drivers that died while they held it."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pgray.execution.run_lock import hold_lock, is_held
from pgray.store.process_records import DRIVER_FILE, read_driver
from trainer.errors import InputError


def _hold(root: Path, ready: Callable[[], None], done: "multiprocessing.synchronize.Event") -> None:
    with hold_lock(root):
        ready()
        done.wait(30)


def test_a_second_driver_is_refused_and_told_which_process_holds_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    root = tmp_path / "run"
    root.mkdir()
    (root / "ledger.jsonl").touch()
    holder = context.Process(target=_hold, args=(root, ready.set, done))
    holder.start()
    assert ready.wait(30)
    assert is_held(root)
    driver = read_driver(root)
    assert driver is not None
    assert driver.pid == holder.pid
    with pytest.raises(InputError, match=rf"held by process {holder.pid} on .* since "), hold_lock(root):
        pass
    holder.kill()
    holder.join()
    assert not is_held(root)
    with hold_lock(root):
        driver = read_driver(root)
        assert driver is not None
        assert driver.pid == os.getpid()
    assert read_driver(root) is None


def test_a_folder_that_was_created_only_to_be_locked_is_removed(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "runs" / "x"):
        pass
    assert not (tmp_path / "runs" / "x").exists()
    with hold_lock(tmp_path / "runs" / "y"):
        (tmp_path / "runs" / "y" / "ledger.jsonl").touch()
    assert (tmp_path / "runs" / "y" / "ledger.jsonl").exists()


def test_the_note_of_a_driver_lists_the_drivers_that_died_before_it(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").touch()  # a folder created only to be locked would be removed
    note = tmp_path / DRIVER_FILE
    with hold_lock(tmp_path) as dead:
        assert dead == []
        first, left = read_driver(tmp_path), note.read_bytes()
    note.write_bytes(left)  # as after a SIGKILL
    with hold_lock(tmp_path, "stop") as dead:
        assert dead == [first]
        left = note.read_bytes()
    note.write_bytes(left)
    with hold_lock(tmp_path) as dead:
        assert [driver.verb for driver in dead] == ["stop", "run"]


@pytest.mark.parametrize("note", ["", "{", "[]", "{}", '{"pid": 7}'])
def test_a_broken_note_is_no_driver(note: str, tmp_path: Path) -> None:
    (tmp_path / DRIVER_FILE).write_text(note)
    assert read_driver(tmp_path) is None
    with hold_lock(tmp_path) as dead:
        assert dead == []

"""The lock of a run folder: only one driver may hold it, and its note names the drivers that died while they held it."""

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from pgray.execution.run_lock import LOCK_FILE, hold_lock, is_held
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


def test_the_note_of_a_driver_that_died_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").touch()  # a folder created only to be locked would be removed
    with hold_lock(tmp_path) as driver:
        assert read_driver(tmp_path) == driver
        left = (tmp_path / DRIVER_FILE).read_bytes()
    (tmp_path / DRIVER_FILE).write_bytes(left.replace(b'"pid": ', b'"pid": 9'))  # as after a SIGKILL
    assert not is_held(tmp_path)
    with hold_lock(tmp_path, "stop") as driver:
        assert read_driver(tmp_path) == driver
        assert driver.verb == "stop"


def _look(root: Path, stop: "multiprocessing.synchronize.Event", lies: "multiprocessing.Queue[int]") -> None:
    lies.put(0)
    count = 0
    while not stop.is_set():
        count += is_held(root)
    lies.put(count)


def test_looking_never_refuses_a_start_and_never_sees_another_watcher(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    stop, lies = context.Event(), context.Queue()
    (tmp_path / "ledger.jsonl").touch()
    with hold_lock(tmp_path):
        pass
    watchers = [context.Process(target=_look, args=(tmp_path, stop, lies)) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    assert [lies.get(timeout=30) for _ in watchers] == [0, 0]
    lock = FileLock(tmp_path / LOCK_FILE)
    for _ in range(300):
        lock.acquire(timeout=0)
        lock.release()
    stop.set()
    assert [lies.get(timeout=30) for _ in watchers] == [0, 0]


def test_a_driver_on_another_machine_is_seen_by_its_lock(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").touch()
    with hold_lock(tmp_path):
        note = tmp_path / DRIVER_FILE
        note.write_text(note.read_text().replace('"host": "', '"host": "far-'))
        assert is_held(tmp_path)
        left = note.read_bytes()
    note.write_bytes(left)
    assert not is_held(tmp_path)


@pytest.mark.parametrize("note", ["", "{", "[]", "{}", '{"pid": 7}'])
def test_a_broken_note_is_no_driver(note: str, tmp_path: Path) -> None:
    (tmp_path / DRIVER_FILE).write_text(note)
    assert read_driver(tmp_path) is None
    assert not is_held(tmp_path)
    with hold_lock(tmp_path):
        assert is_held(tmp_path)


def test_a_copy_of_a_folder_that_is_in_use_has_no_driver(tmp_path: Path) -> None:
    """Else `pgray stop COPY` would stop the driver of the original."""
    original, copy, link = tmp_path / "run", tmp_path / "copy", tmp_path / "link"
    with hold_lock(original):
        shutil.copytree(original, copy)
        link.symlink_to(original)
        assert is_held(original)
        assert is_held(link)
        assert not is_held(copy)
        original.rename(tmp_path / "moved")
        assert is_held(tmp_path / "moved")
        (tmp_path / "moved").rename(original)

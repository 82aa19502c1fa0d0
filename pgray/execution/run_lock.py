"""Allow one driver per run folder: a file lock, and a note that says which process holds it.

The kernel releases the lock when the driver dies, however it dies. Its note then stays until the next driver overwrites
it. A run folder that was created only to be locked is removed on release.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from pgray.execution.processes import own_identity
from pgray.store.process_records import DRIVER_FILE, Driver, parse_record, read_driver
from trainer.errors import InputError
from trainer.records.files import read_json, write_json

LOCK_FILE = ".driver.lock"
_MAX_DEAD = 20  # dead drivers to remember


def is_held(root: Path) -> bool:
    """Whether a driver is running on this run folder now."""
    if not (root / LOCK_FILE).exists():
        return False  # FileLock would create it
    try:
        with FileLock(root / LOCK_FILE, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False  # a read-only folder: the lock cannot be tested


@contextlib.contextmanager
def hold_lock(root: Path, verb: str = "run") -> Iterator[list[Driver]]:
    """Hold the lock of a run folder. Yields the drivers that died while they held it, latest first.

    Raises:
        InputError: another driver holds the lock (the message names it), or the folder cannot be written.
    """
    lock = FileLock(root / LOCK_FILE)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        # The note of a driver that died lists earlier ones too: it may have died before it had ended their processes.
        note = read_json(root / DRIVER_FILE)
        dead = [d for values in (note, *note.get("earlier", [])) if (d := parse_record(Driver, values))]
        driver = Driver(**vars(own_identity()), since=time.time(), verb=verb)
        write_json(root / DRIVER_FILE, {**asdict(driver), "earlier": [asdict(d) for d in dead[:_MAX_DEAD]]})
    except Timeout:
        holder = "held by another driver"
        if found := read_driver(root):
            since = time.strftime("%H:%M:%S", time.localtime(found.since))
            holder = f"held by process {found.pid} on {found.host} since {since}"
        raise InputError(str(root), "lock", holder, "wait for it or run pgray stop") from None
    except OSError as error:
        if lock.is_locked:
            _release(root, lock)
        raise InputError(
            str(root), "folder", error.strerror, "cannot be written; fix that or choose another --runs folder"
        ) from None
    try:
        yield dead
    finally:
        _release(root, lock)


def _release(root: Path, lock: FileLock) -> None:
    """Release the lock even if the disk fails: a note that stays behind is treated as that of a dead driver."""
    with contextlib.suppress(OSError):
        (root / DRIVER_FILE).unlink(missing_ok=True)
        if not any(path.name != LOCK_FILE for path in root.iterdir()):
            (root / LOCK_FILE).unlink(missing_ok=True)
            root.rmdir()
    lock.release()

"""Allow one driver per run folder: a file lock, and a note that says which process holds it.

The kernel releases the lock when the driver dies, however it dies. Its note then stays until the next driver overwrites
it. A run folder that was created only to be locked is removed on release.
"""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from pgray.execution.processes import is_alive, is_local, own_identity
from pgray.store.process_records import DRIVER_FILE, Driver, is_copied, read_driver
from trainer.errors import InputError
from trainer.records.files import write_json

LOCK_FILE = ".driver.lock"
_LOOKING_S = 0.5  # longer than somebody on another machine takes to look at the lock


def is_held(root: Path) -> bool:
    """Whether a driver is running on this run folder now.

    The note tells, so that looking never takes the lock. A process of another machine or container cannot be seen from here:
    then the lock is tried as a reader, so that others who look are not in the way; `hold_lock` waits for them.
    """
    driver = read_driver(root)
    if driver is None or is_copied(driver.run, root):
        return False
    return is_alive(driver) if is_local(driver) else _is_locked(root)


def _is_locked(root: Path) -> bool:
    try:
        with (root / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # no lock, or one that cannot be tested
    return False


@contextlib.contextmanager
def hold_lock(root: Path, verb: str = "run") -> Iterator[Driver]:
    """Hold the lock of a run folder. Yields the note that says so.

    Raises:
        InputError: another driver holds the lock (the message names it), or the folder cannot be written.
    """
    lock = FileLock(root / LOCK_FILE)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_LOOKING_S)
        driver = Driver(**vars(own_identity()), since=time.time(), verb=verb, run=str(root.absolute()))
        write_json(root / DRIVER_FILE, asdict(driver))
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
        yield driver
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

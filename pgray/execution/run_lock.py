"""One driver per run folder: a file lock, and beside it a note of who holds it.

The kernel drops the lock when its holder dies, however it dies; the note may then be stale and is overwritten by the
next holder. A run folder that was made only to be locked is removed again.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pgray.execution.processes import identity
from trainer.errors import InputError
from trainer.records.files import read_json, write_json

LOCK = ".driver.lock"
OWNER = ".driver.json"
_MOST = 20  # dead drivers to remember


def owner_of(root: Path) -> dict[str, Any] | None:
    """pid, host and start time of the driver that last held the lock of this run folder; None if nobody did."""
    return read_json(root / OWNER) or None


def dead_drivers(last: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The driver of a note, and those that died before it while they held the lock, latest first."""
    if last is None:
        return []
    return [{key: value for key, value in last.items() if key != "earlier"}, *last.get("earlier", [])]


def is_held(root: Path) -> bool:
    """Whether a driver is at work on this run folder now."""
    if not (root / LOCK).exists():
        return False
    lock = FileLock(root / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False  # a folder that we may only read: nobody can tell
    lock.release()
    return False


@contextlib.contextmanager
def hold_lock(root: Path, verb: str = "run") -> Iterator[dict[str, Any] | None]:
    """Hold the run folder for the length of a `with`. Gives the note of a driver that died while it held the lock.

    Raises:
        InputError: another driver holds it; says which process on which machine since when.
    """
    lock = FileLock(root / LOCK)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        last = owner_of(root)
        # A driver may die before it has ended what the one before it left, so a note knows its predecessors.
        write_json(
            root / OWNER, {**identity(), "since": time.time(), "verb": verb, "earlier": dead_drivers(last)[:_MOST]}
        )
    except Timeout:
        raise InputError(str(root), "lock", _describe(owner_of(root)), "wait for it, or pgray stop it first") from None
    except OSError as error:
        if lock.is_locked:
            _release(root, lock)
        raise InputError(
            str(root), "folder", error.strerror, "cannot be written; mend that or choose another --runs folder"
        ) from None
    try:
        yield last
    finally:
        _release(root, lock)


def _release(root: Path, lock: FileLock) -> None:
    """Release the lock, whatever the disk says: a note that stays is one of a holder that is dead."""
    with contextlib.suppress(OSError):
        (root / OWNER).unlink(missing_ok=True)
        if not any(path.name != LOCK for path in root.iterdir()):
            (root / LOCK).unlink(missing_ok=True)
            root.rmdir()
    lock.release()


def _describe(owner: dict[str, Any] | None) -> str:
    if owner is None:
        return "held by another driver"
    since = time.strftime("%H:%M:%S", time.localtime(owner.get("since", 0)))
    return f"held by process {owner.get('pid')} on {owner.get('host')} since {since}"

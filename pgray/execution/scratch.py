"""Folders for the temporary files of Ray and Ray Tune, and the removal of those whose owners have died.

The owner's lock in such a folder is held by the driver and by Ray's host, which inherits it. The kernel releases it when the
last of them has died, however it died. Folders without this file are somebody else's.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Self

from pgray.execution import processes

_PREFIX = "pgray-"
_OWNER = "pgray-owner.lock"
_MAX_TEMP = 40  # characters; the path of a Unix socket below must stay under 108


class Scratch:
    """A new folder that is this process's own. Closing removes it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_temp_folder()))
        nameless = self.root / ".lock"
        self.lock = os.open(nameless, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        nameless.rename(self.root / _OWNER)  # it is never seen unlocked

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        os.close(self.lock)


def remove_abandoned() -> None:
    """Remove the folders whose owners have died, and end what is left of their Rays."""
    for marker in Path(_temp_folder()).glob(f"{_PREFIX}*/{_OWNER}"):
        with contextlib.suppress(OSError), marker.open("rb") as lock:  # in use, another user's, or gone meanwhile
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            processes.kill_all(partial(processes.of_ray, marker.parent))
            shutil.rmtree(marker.parent, ignore_errors=True)


def _temp_folder() -> str:
    return tempfile.gettempdir() if len(tempfile.gettempdir()) <= _MAX_TEMP else "/tmp"

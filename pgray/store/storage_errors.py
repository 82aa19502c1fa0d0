"""A run folder that can no longer be written, as on a full disk: a reason to pause, not a bug of the driver's."""

import errno
import re

_CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system has become read-only",
    errno.EIO: "the disk fails",
    errno.ESTALE: "the file server has gone away",
}
SIGN = re.compile(r"No space left on device|Disk quota exceeded|Read-only file system", re.M)
"""What a job's log says when it could not write."""


def why_unwritable(error: OSError) -> str:
    """What is wrong with the disk, in a few words. Raises the error again where it is about something else."""
    if error.errno not in _CAUSES:
        raise error
    where = f" ({error.filename})" if error.filename else ""
    return f"{_CAUSES[error.errno]}{where}; mend that and run the same command again"

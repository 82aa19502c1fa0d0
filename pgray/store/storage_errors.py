"""Recognize errors of the disk, such as a full one. They pause a sweep; they are not bugs of the driver."""

import errno

_CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system has become read-only",
    errno.EIO: "the disk has failed",
    errno.ESTALE: "the file server is gone",
}


def why_unwritable(error: OSError) -> str:
    """Describe what is wrong with the disk. Raises the error again if it is about something else."""
    if error.errno not in _CAUSES:
        raise error
    where = f" ({error.filename})" if error.filename else ""
    return f"{_CAUSES[error.errno]}{where}; fix that and run the same command again"

"""Determine the kind of a failure from an exception or from the log of a job. Loads no torch.

What a new attempt may survive is `infra`: a lost connection to another rank, a fault of the GPU or of the disk. Any other
unexpected exception is `user_error`, a bug or a wrong input: it would come again, at the same cost.
"""

import errno
import re
import traceback

from trainer.errors import FailureKind, PgrayError
from trainer.records.results import JobFailure

DISK_ERROR = re.compile(r"No space left on device|Disk quota exceeded|Read-only file system")
"""What a job prints if it could not write."""
_OOM = re.compile(r"OutOfMemoryError|CUDA out of memory|^MemoryError|DefaultCPUAllocator: can't allocate memory", re.M)
_CODE = re.compile(r"device-side assert triggered|no kernel image is available")  # CUDA errors that come again
_DEVICE = re.compile(
    r"CUDA (?:driver |runtime |unknown )?error|No CUDA GPUs are available|cuDNN error|CUBLAS_STATUS_|ECC error"
    r"|NCCL error|ncclSystemError|ncclRemoteError"
    r"|Connection (?:closed|reset) by peer|gloo/transport"
)
_PATTERNS: tuple[tuple[re.Pattern[str], FailureKind], ...] = (
    (_OOM, "oom"), (DISK_ERROR, "infra"), (_CODE, "user_error"), (_DEVICE, "infra"),
)  # fmt: skip
_FAULTY_STORAGE = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
_MAX_REASON, _MAX_TRACE = 1000, 8000


def known_failure(text: str) -> tuple[FailureKind, str] | None:
    """Return the kind of a failure that `text` shows, and the line that shows it; None if it shows none."""
    for pattern, kind in _PATTERNS:
        if found := pattern.search(text):
            start = text.rfind("\n", 0, found.start()) + 1
            return kind, text[start:].split("\n", 1)[0]
    return None


def failure_of(error: Exception) -> JobFailure:
    """Describe why a job stopped. Call it while the exception is handled, so that its traceback is known."""
    reason = " ".join((str(error) if is_reported(error) else f"{type(error).__name__}: {error}").split())
    trace = "".join(traceback.format_exception(error))
    return JobFailure(kind=_kind(error, reason), reason=reason[:_MAX_REASON], trace=trace[-_MAX_TRACE:])


def is_reported(error: Exception) -> bool:
    """Whether our code raised this error to tell the user what is wrong, so that its message is enough."""
    return isinstance(error, PgrayError)


def _kind(error: Exception, reason: str) -> FailureKind:
    if isinstance(error, PgrayError):
        return error.kind
    if known := known_failure(reason):
        return known[0]
    if isinstance(error, ConnectionError | TimeoutError):
        return "infra"
    if isinstance(error, OSError):
        return "infra" if error.errno in _FAULTY_STORAGE else "user_error"
    return "infra" if _is_of_collective(error) else "user_error"


def _is_of_collective(error: Exception) -> bool:
    """Whether a collective or a rendezvous failed, as on all ranks but the one that died."""
    if any(cls.__name__ == "DistError" for cls in type(error).__mro__):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, RuntimeError) and any("/torch/distributed/" in frame.filename for frame in frames)

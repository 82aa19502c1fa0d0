"""Read the end of a job's log, without what torchrun adds when ranks die."""

import re
from pathlib import Path

_TAIL_BYTES = 20_000
# The first line of torchrun's report. Its traceback and a summary of the ranks follow.
_REPORT = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/(?:agent|multiprocessing)/", re.M)


def read_tail(log: Path) -> str:
    """Return the last 20,000 bytes of a log; nothing if it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def without_torchrun_report(tail: str) -> str:
    """Return what the ranks printed; everything if they printed nothing."""
    report = _REPORT.search(tail)
    own = tail[: report.start()] if report else tail
    return own if own.strip() else tail

"""Rewrites a run's report while the sweep runs, in a process of its own: drawing takes seconds."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

_EVERY_S = 30.0  # from the end of one report to the start of the next, and from the start of the sweep to the first
_NICENESS = 19  # the trials of this machine come first
_ROOT = Path(__file__).resolve().parents[2]


class LiveReport:
    """Keeps report.html of a run up to date. `pgray report` replaces the file atomically.

    Args:
        run_root: the run folder.
        log: receives one line if a report could not be written; the sweep goes on.
    """

    def __init__(self, run_root: Path, log: logging.Logger) -> None:
        self._run_root, self._log = run_root, log
        self._process: subprocess.Popen[bytes] | None = None
        self._next_at = time.monotonic() + _EVERY_S
        self._has_news = self._has_failed = False

    def on_change(self) -> None:
        """Note that the report on the disk is no longer up to date."""
        self._has_news = True

    def poll(self) -> None:
        """Start a report if one is due. Returns at once."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._process, self._next_at = None, time.monotonic() + _EVERY_S
            if code:
                self._on_failure()
        if self._has_news and time.monotonic() >= self._next_at:
            self._has_news = False
            try:
                self._process = _draw(self._run_root)
            except OSError:
                self._next_at = time.monotonic() + _EVERY_S
                self._on_failure()

    def close(self) -> None:
        """End a report that is being written, so that it does not replace a later one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _on_failure(self) -> None:
        if not self._has_failed:
            self._log.info("the report could not be written while the sweep runs; try pgray report %s", self._run_root)
        self._has_failed = True


def _draw(run_root: Path) -> subprocess.Popen[bytes]:
    paths = [str(_ROOT), *os.environ.get("PYTHONPATH", "").split(":")]
    process = subprocess.Popen(
        [sys.executable, "-m", "pgray", "report", str(run_root)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, paths))},
        start_new_session=True,  # a Ctrl-C is for the driver, which ends it
    )
    with contextlib.suppress(OSError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
    return process

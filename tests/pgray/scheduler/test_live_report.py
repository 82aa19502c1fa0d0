"""The report is rewritten while the sweep runs: by a process of its own, one at a time, at most every 30 s."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pgray.scheduler.live_report
from pgray.scheduler.live_report import LiveReport
from tests.pgray.conftest import wait_for
from tests.pgray.fake_executor import FakeExecutor
from tests.pgray.scheduler.test_driver import drive
from trainer.records.layout import RunLayout


def test_the_report_is_there_while_jobs_run(
    write_sweep: Callable[..., Path], tmp_path: Path, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgray.scheduler.live_report._EVERY_S", 0.0)
    report = RunLayout(tmp_path / "runs/test").report
    executor.at_poll = {4: lambda: wait_for(report.exists)}
    outcome = drive(write_sweep(seeds="[1]"), tmp_path / "runs")
    assert outcome.counts == {"finished": 3}
    assert "running" in report.read_text(), "the last report, which this test leaves out, would not say so"


class _Drawn:
    """Stands in for the process that draws: each runs until `code` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.started = 0.0, list[subprocess.Popen[bytes]]()
        monkeypatch.setattr("pgray.scheduler.live_report.time.monotonic", lambda: self.now)
        monkeypatch.setattr(pgray.scheduler.live_report, "_draw", self._draw)

    def _draw(self, _: Path) -> subprocess.Popen[bytes]:
        wait = "import sys; sys.exit(int(sys.stdin.read() or 0))"
        self.started.append(subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE))
        return self.started[-1]

    def end(self, code: int = 0) -> None:
        self.started[-1].communicate(str(code).encode())


def test_one_at_a_time_at_most_every_30_s_and_only_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = _Drawn(monkeypatch)
    live = LiveReport(tmp_path, logging.Logger("x"))

    def num_started(now: float) -> int:
        drawn.now = now
        live.poll()
        return len(drawn.started)

    live.on_change()
    assert [num_started(29.9), num_started(30.1)] == [0, 1]
    live.on_change()
    assert num_started(200.0) == 1, "the first one still runs"
    drawn.end()
    assert [num_started(200.0), num_started(229.9), num_started(230.1)] == [1, 1, 2]
    drawn.end()
    assert [num_started(300.0), num_started(400.0)] == [2, 2], "nothing has changed"
    live.close()


def test_a_report_that_fails_is_logged_once_and_one_that_is_late_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = _Drawn(monkeypatch)
    caplog.set_level(logging.INFO)
    live = LiveReport(tmp_path, logging.getLogger("live"))
    for now in (100.0, 200.0):
        drawn.now = now
        live.on_change()
        live.poll()
        drawn.end(1)
        live.poll()
    assert caplog.messages == [f"the report could not be written while the sweep runs; try pgray report {tmp_path}"]
    drawn.now = 300.0
    live.on_change()
    live.poll()
    live.close()
    assert len(drawn.started) == 3
    assert drawn.started[-1].wait() == -9
    drawn.end()

"""A run writes its report at its end. If drawing fails it says so, and its exit code stays the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pgray.scheduler.driver import run_sweep
from pgray.spec.sweep import Sweep
from tests.pgray.conftest import PLAIN, RecordedProgress
from tests.pgray.fake_executor import FakeExecutor

ONE_ARM = "\n  int8: {}\n"


@pytest.mark.parametrize("fails", [False, True])
def test_the_report_at_the_end(
    write_sweep: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def break_off(_: object) -> None:
        raise ZeroDivisionError("no room\nfor a picture")

    FakeExecutor().install(monkeypatch)
    if fails:
        monkeypatch.setattr("results.report.html.write_report", break_off)
    reporter = RecordedProgress()
    path = write_sweep(arms=ONE_ARM, seeds="[1]")
    outcome = run_sweep(Sweep.from_yaml(path), tmp_path / "runs", reporter=reporter, trainer_command=PLAIN, grace_s=3.0)
    assert outcome.exit_code == 0
    report = outcome.run_root / "report.html"
    assert report.is_file() != fails
    about = [text for text in reporter.lines if "report" in text]
    assert about == [
        f"no report, since drawing it failed (ZeroDivisionError: no room); try pgray report {outcome.run_root}"
        if fails
        else f"report: {report}"
    ]

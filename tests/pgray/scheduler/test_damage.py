"""A disk that is full or read-only, files that are cut, garbled or gone: one clear line or healing, and nothing lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pgray.scheduler.driver
import results
from pgray.cli.entry import main
from pgray.execution.code_snapshot import snapshot_code
from pgray.execution.launchers.base import LaunchSettings
from pgray.execution.run_lock import is_held
from pgray.planning.decision import decide
from pgray.planning.planner import make_plan
from pgray.scheduler.ledger_writer import LedgerWriter
from pgray.scheduler.queue import JobQueue
from pgray.spec.sweep import Sweep
from pgray.store.ledger import Ledger
from pgray.store.storage_errors import why_unwritable
from tests.pgray.chaos import ROOT
from tests.pgray.conftest import SWEEP, VOCAB, marked, wait_for
from tests.pgray.scheduler.test_driver import drive, launches
from trainer.records.files import write_json
from trainer.records.layout import RunLayout

WriteSweep = Callable[..., Path]
ARMS = "  int8: {}\n  int6: {quant.bits.mlp: 6}\n  b8: {optim.matrix_lr: 0.041}\n  c8: {optim.matrix_lr: 0.042}\n"


def finished_results(root: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in root.glob("trials/*/result.json")}


# A disk that cannot be written.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight MiB. Only root may mount one, and not in every container."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, left_kib: int) -> Path:
    """Write a file that leaves so much free."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(folder).free - left_kib * 1024))
    return ballast


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(("left_kib", "has_code"), [(8, False), (100, True)])  # too little to begin, and to end
def test_a_full_disk_pauses_the_sweep_and_nothing_is_lost(
    write_sweep: WriteSweep, small_disk: Path, left_kib: int, has_code: bool
) -> None:
    path = write_sweep(arms=ARMS, seeds="[1]")
    if has_code:
        snapshot_code(RunLayout(small_disk / "runs" / "test"))
    ballast = fill(small_disk, left_kib)
    outcome = drive(path, small_disk / "runs")
    root = outcome.run_root
    assert outcome.exit_code == 4
    assert outcome.paused is not None
    assert "the disk is full" in outcome.paused or "a job could not write" in outcome.paused
    wait_for(lambda: not marked(root), 5)
    assert not is_held(root)
    before = finished_results(root)

    ballast.unlink()
    outcome = drive(path, small_disk / "runs")
    assert (outcome.exit_code, outcome.counts) == (0, {"finished": 4})
    assert before.items() <= finished_results(root).items()
    assert (results.load(root)["status"] == "finished").all()
    wait_for(lambda: not marked(root), 5)


def test_a_disk_with_no_room_for_the_lock(
    write_sweep: WriteSweep, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(arms=ARMS, seeds="[1]")
    fill(small_disk, 0)
    assert main(["run", str(path), "--runs", str(small_disk / "runs")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_about_the_disk_and_what_is_a_bug() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/x/table.md")
    assert why_unwritable(full).startswith("the disk is full (/runs/x/table.md); ")
    with pytest.raises(IsADirectoryError):
        why_unwritable(IsADirectoryError(errno.EISDIR, "is a directory"))


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_a_job_that_cannot_write_is_enough_to_pause(write_sweep: WriteSweep, tmp_path: Path) -> None:
    path = write_sweep(arms=ARMS.replace("b8: {", "b8: {optim.muon_momentum_steps: 11, "), seeds="[1]")
    outcome = drive(path, tmp_path / "runs")
    assert outcome.exit_code == 4
    assert outcome.paused == "a job could not write: OSError: [Errno 28] No space left on device"
    states = {entry.arm: entry.state for entry in Ledger(RunLayout(outcome.run_root).ledger).states().values()}
    assert states["b8"] == "queued"


# Files that are cut, garbled or gone, in a run folder where all is finished.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A sweep file, and the folder that holds its finished run. Copy it before you break it."""
    request.getfixturevalue("ray")
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "test.yaml"
    text = {"vocab": VOCAB, "name": "test", "data": data, "set": "optim.ns_steps: 1", "seeds": "[1]", "iterations": 4}
    path.write_text(SWEEP.format(arms=ARMS, **text) + "launcher: plain\n")
    assert drive(path, folder / "runs").exit_code == 0
    return path, folder / "runs"


class LaunchError(Exception):
    """A job would have been launched."""


@pytest.fixture
def runs(finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run, to be broken; what would launch a job raises `LaunchError`."""

    def refuse(*_: object) -> None:
        raise LaunchError

    monkeypatch.setattr(pgray.scheduler.driver, "make_executor", refuse)
    shutil.copytree(finished[1], tmp_path / "runs")
    return tmp_path / "runs"


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage": lambda path: path.write_bytes(b"\x00\xff\xfe{[" + bytes(100)),
    "a list": lambda path: path.write_text("[1, 2]\n"),
    "an empty object": lambda path: path.write_text("{}\n"),
    "another's": lambda path: path.write_bytes(
        path.read_bytes().replace(b"int6", b"int9").replace(b'"seed": 1', b'"seed": 7')
    ),
}
PARTS = (
    "ledger.jsonl", "trials/int6-*/result.json", "trials/int6-*/config.json", "trials/int6-*/log.txt", "jobs/*/job.json",
    "jobs/*/launch.json", "jobs/*/supervisor.json", "jobs/*/exit.json", "trained/*/training.json", "trained/*/events.jsonl",
    "provenance.json", "driver.log", "sweep.yaml", "table.md", "table.csv", "table.parquet",
)  # fmt: skip


@pytest.mark.ray
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", PARTS)
def test_no_file_of_a_run_is_trusted(
    part: str, damage: str, finished: tuple[Path, Path], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = runs / "test"
    for path in root.glob(part):
        DAMAGES[damage](path)
    left = finished_results(root)
    for verb in ("status", "table"):
        code, error = main([verb, str(root)]), capsys.readouterr().err
        assert (code, error.count("\n")) == (0, 0) or (code == 2 and part == "ledger.jsonl" and error.count("\n") == 1)
    try:
        assert drive(finished[0], runs).counts == {"finished": 4}
        assert part != "trials/int6-*/result.json"
        assert (results.load(root)["status"] == "finished").all()
    except LaunchError:
        assert part == "trials/int6-*/result.json"
    assert finished_results(root) == left


@pytest.mark.ray
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_driver_that_died_and_left_broken_records(damage: str, finished: tuple[Path, Path], runs: Path) -> None:
    root = runs / "test"
    ledger = RunLayout(root).ledger
    ledger.write_text("".join(line for line in ledger.read_text().splitlines(True) if '"finished"' not in line))
    for path in root.glob("jobs/*/*.json"):
        DAMAGES[damage](path)
    assert drive(finished[0], runs).counts == {"finished": 4}
    assert (results.load(root)["status"] == "finished").all()


@pytest.mark.ray
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), rubbish=st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=60)), max_size=4))
def test_whatever_happens_to_the_ledger_finished_trials_stay_finished(
    cut: float, rubbish: list[tuple[int, bytes]], finished: tuple[Path, Path], runs: Path
) -> None:
    root = runs / "test"
    whole = RunLayout(finished[1] / "test").ledger.read_bytes()
    lines = whole[: int(cut * len(whole))].split(b"\n")
    for place, line in rubbish:
        lines.insert(min(place, len(lines)), line)
    RunLayout(root).ledger.write_bytes(b"\n".join(lines))
    before = finished_results(root)
    for _ in range(2):
        outcome = drive(finished[0], runs)
        assert (outcome.exit_code, outcome.counts, outcome.num_launched_jobs) == (0, {"finished": 4}, 0)
        assert list(results.load(root)["status"]) == ["finished"] * 4
    assert finished_results(root) == before


@pytest.mark.ray
def test_a_run_folder_that_may_only_be_read(
    finished: tuple[Path, Path], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = runs / "test"
    mounts = (["mount", "--bind", str(runs), str(runs)], ["mount", "-o", "remount,ro,bind", str(runs)])
    if os.getuid() == 0:
        if any(subprocess.run(mount, capture_output=True, check=False).returncode for mount in mounts):
            pytest.skip("cannot mount a folder read-only here")
    else:
        root.chmod(0o555)
    try:
        for verb, code in (("status", 0), ("table", 0), ("stop", 2), ("retry", 2)):
            assert main([verb, str(root)]) == code, verb
            assert capsys.readouterr().err.count("\n") == (code == 2)
        assert main(["plan", str(finished[0]), "--runs", str(runs)]) == 0
        capsys.readouterr()
        assert main(["run", str(finished[0]), "--runs", str(runs)]) == 2
        assert "cannot be written; fix that or choose another --runs folder" in capsys.readouterr().err
    finally:
        if os.getuid() == 0:
            subprocess.run(["umount", "--lazy", str(runs)], check=True)
        else:
            root.chmod(0o755)


@pytest.mark.ray
def test_an_artifact_that_is_gone_is_told(
    finished: tuple[Path, Path], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (artifact,) = runs.glob("test/trials/int6-*/artifact.pgz")
    artifact.unlink()
    assert main(["run", str(finished[0]), "--runs", str(runs)]) == 0
    said = (
        f"warning: 1 finished trial without an artifact, such as {artifact.parent.name}; delete a trial's result.json"
    )
    assert said in capsys.readouterr().err


# Job records that somebody has thrown away.


@pytest.mark.ray
def test_a_job_never_gets_the_name_of_an_earlier_one(finished: tuple[Path, Path], runs: Path) -> None:
    """Its records, and what it cost, would be taken for the other's."""
    root = runs / "test"
    layout = RunLayout(root)
    (result,) = root.glob("trials/b8-*/result.json")
    fingerprint = json.loads(result.read_text())["train_fingerprint"]
    result.unlink()
    write_json(layout.job(f"{fingerprint}-7").launch, {})
    shutil.rmtree(layout.job(f"{fingerprint}-0").root)
    assert next_job(finished[0], layout) == f"{fingerprint}-8"
    shutil.rmtree(layout.jobs)
    assert next_job(finished[0], layout) == f"{fingerprint}-1"  # the ledger knows of one


def next_job(path: Path, layout: RunLayout) -> str:
    sweep = Sweep.from_yaml(path)
    decision = decide(make_plan(sweep), layout)
    queue = JobQueue(decision, layout, LedgerWriter(layout, decision), LaunchSettings(layout.root, sweep.machine))
    queue.start()
    job = queue.next()
    assert job is not None
    return job.job_id


# Two drivers.

# Under load one process may need longer for its imports than the other for the whole sweep, so they wait for each other.
DRIVE_WHEN_TOLD = """
import runpy
import pgray.cli.run, pgray.scheduler.driver
print("ready", flush=True)
input()
runpy.run_module("tests.pgray.drive", run_name="__main__", alter_sys=True)
"""


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_of_two_drivers_at_once_one_works_and_the_other_says_so(write_sweep: WriteSweep, tmp_path: Path) -> None:
    import ray

    path = write_sweep(arms=ARMS, seeds="[1]")
    where = ["--runs", str(tmp_path / "runs"), "--address", str(ray.get_runtime_context().gcs_address)]
    command = [sys.executable, "-c", DRIVE_WHEN_TOLD, str(path), *where]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    drivers = [subprocess.Popen(command, cwd=ROOT, text=True, **streams) for _ in range(2)]  # type: ignore[call-overload]
    for driver in drivers:
        assert driver.stdout.readline() == "ready\n"
    for driver in drivers:
        driver.stdin.write("\n")
        driver.stdin.flush()
    errors = [(driver.communicate(timeout=120)[1], driver.returncode) for driver in drivers]
    refused = [error for error, code in errors if code == 2]
    assert sorted(code for _, code in errors) == [0, 2], errors
    assert refused[0].count("\n") == 1
    assert "lock: held by process " in refused[0]
    root = tmp_path / "runs" / "test"
    assert set(launches(root).values()) == {1}
    assert [entry.state for entry in Ledger(RunLayout(root).ledger).entries()].count("finished") == 4
    wait_for(lambda: not marked(root), 5)

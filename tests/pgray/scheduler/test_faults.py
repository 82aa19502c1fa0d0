"""Real faults of a real `pgray run` with a Ray of its own: it ends within seconds, says why, and leaves nothing behind."""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pgray.cli import control
from pgray.cli.entry import main
from pgray.store.ledger import Ledger
from tests.pgray.conftest import marked, temporary_files, wait_for
from trainer.records.layout import RunLayout

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 20.0  # ten on a machine with nothing else to do
ARMS = "  int8: {}\n  slow: {optim.matrix_lr: 0.011, train.iterations: 1500}\n"
WriteSweep = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files whose path is short enough for Ray, and whose locks no other test uses."""
    with tempfile.TemporaryDirectory(prefix="f", dir="/tmp") as folder:
        yield Path(folder)


def own_terminal() -> None:
    """Take standard input as the terminal of this session, and its end as a signal, which `nohup make test` ignores."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def start(tmp_path: Path, temporary: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(path: Path, terminal: int | None = None) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.pgray.drive", str(path), "--runs", str(tmp_path / "runs")]
        environment = {**os.environ, "TMPDIR": str(temporary)}
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        if terminal is not None:
            streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal) | {"preexec_fn": own_terminal}
        started.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, text=True, start_new_session=True, **streams)  # type: ignore[call-overload]
        )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def processes_below(temporary: Path) -> list[psutil.Process]:
    """The processes of the drivers' Rays."""
    found = psutil.process_iter(["cmdline", "name"])
    return [process for process in found if any(str(temporary) in word for word in process.info["cmdline"] or [])]


def is_training(root: Path) -> bool:
    return any(root.glob("trained/*/events.jsonl")) and "slow" in {
        arm for arm, state in states(root) if state == "running"
    }


def states(root: Path) -> set[tuple[str, str]]:
    return {(entry.arm, str(entry.state)) for entry in Ledger(RunLayout(root).ledger).states().values()}


def ended(driver: "subprocess.Popen[str]", root: Path, temporary: Path) -> str:
    """Wait for a driver, check that nothing is left, and return what it printed about its end."""
    _, error = driver.communicate(timeout=WITHIN_S)
    wait_for(lambda: not marked(root) and not processes_below(temporary), 5)
    assert not temporary_files(temporary)
    assert "running" not in {state for _, state in states(root)}
    if error is None:  # it printed to a terminal
        return ""
    assert "Traceback" not in error
    assert not re.search(r"\.cc:\d+", error), "Ray's own lines"
    return str(error)


def read_all(terminal: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        while os.read(terminal, 4096):
            pass
    return True


def test_stop_while_ray_starts(write_sweep: WriteSweep, start: Start, tmp_path: Path, temporary: Path) -> None:
    root = tmp_path / "runs" / "test"
    driver = start(write_sweep(arms=ARMS, seeds="[1]"))
    wait_for((root / ".ray.json").exists, 20)
    assert main(["stop", str(root)]) == 0
    error = ended(driver, root, temporary)
    assert (driver.returncode, "Interrupted" in error) == (130, True), error
    assert not root.exists(), "the folder was made only to be locked"


def test_rays_server_is_killed(write_sweep: WriteSweep, start: Start, tmp_path: Path, temporary: Path) -> None:
    root = tmp_path / "runs" / "test"
    driver = start(write_sweep(arms=ARMS, seeds="[1]"))
    wait_for(lambda: is_training(root))
    next(process for process in processes_below(temporary) if process.info["name"] == "gcs_server").kill()
    error = ended(driver, root, temporary)
    assert driver.returncode == 4, error
    assert len([line for line in error.splitlines() if "Ray was lost: its server" in line]) == 1
    assert states(root) == {("int8", "queued"), ("slow", "queued")} or states(root) == {
        ("int8", "finished"), ("slow", "queued"),
    }  # fmt: skip


def test_every_process_gets_sigterm_at_once_as_from_scancel(
    write_sweep: WriteSweep, start: Start, tmp_path: Path, temporary: Path
) -> None:
    root = tmp_path / "runs" / "test"
    driver = start(write_sweep(arms=ARMS, seeds="[1]"))
    wait_for(lambda: is_training(root))
    own = psutil.Process(driver.pid)
    for process in [own, *own.children(recursive=True), *processes_below(temporary), *marked(root)]:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    error = ended(driver, root, temporary)
    assert (driver.returncode, "Interrupted" in error) == (130, True), error
    assert ("slow", "queued") in states(root)


def test_a_closed_terminal_stops_the_run(
    write_sweep: WriteSweep, start: Start, tmp_path: Path, temporary: Path
) -> None:
    """The kernel sends SIGHUP, and whatever the driver prints from then on is an error."""
    root = tmp_path / "runs" / "test"
    terminal, inside = os.openpty()
    os.set_blocking(terminal, False)
    driver = start(write_sweep(arms=ARMS, seeds="[1]"), inside)
    os.close(inside)
    wait_for(lambda: read_all(terminal) and is_training(root))
    os.close(terminal)
    ended(driver, root, temporary)
    assert driver.returncode == 130
    assert ("slow", "queued") in states(root)
    log = RunLayout(root).driver_log.read_text()
    assert log.splitlines()[-1].endswith("exit code 130")
    assert "paused" not in log


def test_stop_kills_a_driver_that_hangs(
    write_sweep: WriteSweep,
    start: Start,
    tmp_path: Path,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(control, "_REACTION_S", 1.0)
    root = tmp_path / "runs" / "test"
    driver = start(write_sweep(arms=ARMS, seeds="[1]"))
    wait_for(lambda: is_training(root))
    driver.send_signal(signal.SIGSTOP)
    assert main(["stop", str(root)]) == 0
    assert f"Driver {driver.pid} does not react; killing it." in capsys.readouterr().err
    ended(driver, root, temporary)
    assert driver.returncode == -signal.SIGKILL
    assert ("slow", "queued") in states(root), "stop has settled the ledger"


def test_two_sweeps_on_one_machine_never_use_the_same_gpu(
    write_sweep: WriteSweep, start: Start, tmp_path: Path
) -> None:
    """Two sweeps of 2 of the 4 GPUs run side by side on different ones; one that needs all 4 waits."""
    needs = "resources: {gpus: %s, cpus: 1}\nnproc: 1\n"
    roots = {name: tmp_path / "runs" / name for name in ("left", "right", "all")}
    drivers = {}
    for name, gpus in (("left", 2), ("right", 2), ("all", 4)):
        path = write_sweep(arms="  int8: {}\n", seeds="[1]", name=name, set="optim.ns_steps: 20", iterations=20)
        path.write_text(path.read_text() + needs % gpus)
        if name == "all":
            wait_for(lambda: all(any(root.glob("jobs/*/log.txt")) for root in list(roots.values())[:2]))
        drivers[name] = start(path)
    errors = {name: ended_well(driver) for name, driver in drivers.items()}
    assert "Waiting for 4 GPUs and 1 CPU of this machine, in use by" in errors["all"]
    seen, spans = {}, {}
    for name, root in roots.items():
        (log,) = root.glob("jobs/*/log.txt")
        seen[name] = set(re.findall(r"CUDA_VISIBLE_DEVICES (\S+)", log.read_text())[0].split(","))
        record = json.loads((log.parent / "exit.json").read_text())
        spans[name] = record["started_at"], record["ended_at"]
    assert [len(seen[name]) for name in roots] == [2, 2, 4]
    assert not seen["left"] & seen["right"]
    assert spans["all"][0] >= max(spans["left"][1], spans["right"][1])


def ended_well(driver: "subprocess.Popen[str]") -> str:
    _, error = driver.communicate(timeout=60)
    assert driver.returncode == 0, error
    return str(error)


def test_a_killed_driver_leaves_nothing_for_longer_than_ten_seconds(
    write_sweep: WriteSweep, start: Start, tmp_path: Path, temporary: Path
) -> None:
    root = tmp_path / "runs" / "test"
    driver = start(write_sweep(arms=ARMS, seeds="[1]"))
    wait_for((root / ".ray.json").exists, 20)
    time.sleep(2.0)
    driver.kill()
    driver.communicate()
    wait_for(lambda: not marked(root) and not processes_below(temporary), 10)
    assert not temporary_files(temporary)

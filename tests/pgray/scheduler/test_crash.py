"""A driver that is killed or stopped in the middle: nothing is left running, nothing finished is run again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

import results
from pgray.cli.entry import main
from pgray.execution import processes
from pgray.execution.run_lock import is_held
from pgray.scheduler.driver import run_sweep
from pgray.spec.sweep import Sweep
from pgray.store.ledger import Ledger
from tests.pgray.conftest import PLAIN, marked, wait_for
from tests.pgray.scheduler.test_driver import launches
from trainer.records.layout import RunLayout

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray")]
ROOT = Path(__file__).resolve().parents[3]
FAST_AND_SLOW = """
  int8: {}
  int6: {quant.bits.mlp: 6}
  slow: {optim.matrix_lr: 0.011, train.iterations: 150}
  slow4: {optim.matrix_lr: 0.012, train.iterations: 150, quant.bits.mlp: 4}
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_driver(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(path: Path, *address: str) -> "subprocess.Popen[str]":
        where = ["--runs", str(tmp_path / "runs"), *(word for ray in address for word in ("--address", ray))]
        command = [sys.executable, "-m", "tests.pgray.drive", str(path), *where]
        # A test run in the background of a shell has inherited that SIGINT is ignored, and the driver would respect it.
        heeds_ctrl_c = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heeds_ctrl_c,
            start_new_session=True,
        )
        started.append(process)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


def in_the_middle(root: Path) -> bool:
    """The fast trials are done, `slow` is training."""
    results_on_disk = len(list(root.glob("trials/*/result.json")))
    states = {(entry.arm, entry.state) for entry in Ledger(RunLayout(root).ledger).states().values()}
    return results_on_disk >= 2 and ("slow", "running") in states and bool(processes.of_run(str(root)))


def go_on(path: Path, root: Path) -> None:
    """Run again, and check that this was enough and not too much."""
    before = launches(root)
    finished = [p.read_bytes() for p in sorted(root.glob("trials/*/result.json"))]
    done_runs = {json.loads(text)["train_fingerprint"] for text in finished}
    outcome = run_sweep(Sweep.from_yaml(path), root.parent, trainer_command=PLAIN, grace_s=3.0)
    assert outcome.exit_code == 0
    assert outcome.num_launched_trials == outcome.counts["finished"] - len(finished)
    assert {name: launches(root)[name] for name in done_runs} == {name: before[name] for name in done_runs}
    assert {name: launches(root)[name] for name in done_runs} == dict.fromkeys(done_runs, 1)
    assert set(finished) <= {p.read_bytes() for p in root.glob("trials/*/result.json")}
    entries = Ledger(RunLayout(root).ledger).entries()
    ends = [entry.trial_id for entry in entries if entry.state == "finished"]
    assert len(ends) == len(set(ends)) == outcome.counts["finished"]
    assert (results.load(root)["status"] == "finished").all()
    wait_for(lambda: not marked(root), 5)


def test_sigkill_in_the_middle_and_again(write_sweep: Callable[..., Path], tmp_path: Path, start_driver: Start) -> None:
    path = write_sweep(arms=FAST_AND_SLOW, seeds="[1]", set="optim.ns_steps: 2")
    root = tmp_path / "runs" / "test"
    driver = start_driver(path)  # with a Ray of its own, as `pgray run` has
    wait_for(lambda: in_the_middle(root) or driver.poll() is not None, 60)
    assert driver.poll() is None
    ray_processes = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    go_on(path, root)  # at once: the jobs of the dead driver may still be about to end
    log = RunLayout(root).driver_log.read_text()
    assert log.count("start: process") == 2, "the second driver appends"
    assert "closed job" in log
    assert psutil.wait_procs(ray_processes, timeout=5)[1] == []


def test_ctrl_c_lets_running_jobs_finish_and_starts_no_more(
    write_sweep: Callable[..., Path], tmp_path: Path, start_driver: Start
) -> None:
    path = write_sweep(arms=FAST_AND_SLOW, seeds="[1, 2]", set="optim.ns_steps: 2")
    root = tmp_path / "runs" / "test"
    driver = start_driver(path)  # with a Ray of its own, which also receives a Ctrl-C of the terminal
    wait_for(lambda: in_the_middle(root) or driver.poll() is not None, 60)
    assert driver.poll() is None
    os.killpg(driver.pid, signal.SIGINT)
    _, error = driver.communicate(timeout=60)
    assert driver.returncode == 130, error
    assert "Ctrl-C again stops them" in error
    assert "Traceback" not in error
    wait_for(lambda: not marked(root), 5)
    states = {(e.arm, e.seed): e.state for e in Ledger(RunLayout(root).ledger).states().values()}
    assert states["slow", 1] == "finished"
    assert states["slow4", 2] == "queued"
    assert set(states.values()) == {"finished", "queued"}
    go_on(path, root)


def test_a_second_ctrl_c_stops_what_runs(
    write_sweep: Callable[..., Path], tmp_path: Path, start_driver: Start, address: str
) -> None:
    path = write_sweep(arms=FAST_AND_SLOW, seeds="[1]", set="optim.ns_steps: 2")
    root = tmp_path / "runs" / "test"
    driver = start_driver(path, address)
    wait_for(lambda: in_the_middle(root) or driver.poll() is not None, 60)
    assert driver.poll() is None
    driver.send_signal(signal.SIGINT)
    time.sleep(0.5)
    driver.send_signal(signal.SIGINT)
    _, error = driver.communicate(timeout=40)
    assert driver.returncode == 130, error
    assert "Traceback" not in error
    wait_for(lambda: not marked(root), 5)
    assert not is_held(root)
    states = {e.arm: (e.state, e.reason) for e in Ledger(RunLayout(root).ledger).states().values()}
    assert states["slow"] == ("queued", "interrupted before it ended")
    assert states["int8"][0] == "finished"
    go_on(path, root)


def test_status_and_stop_from_another_terminal(
    write_sweep: Callable[..., Path],
    tmp_path: Path,
    start_driver: Start,
    address: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_sweep(arms=FAST_AND_SLOW, seeds="[1]", set="optim.ns_steps: 2")
    root = tmp_path / "runs" / "test"
    driver = start_driver(path, address)
    wait_for(lambda: in_the_middle(root) or driver.poll() is not None, 60)
    assert driver.poll() is None
    wait_for(lambda: sum(e.state == "finished" for e in Ledger(RunLayout(root).ledger).states().values()) >= 2)
    assert main(["status", str(root), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["driver"]["pid"] == driver.pid
    assert status["counts"]["finished"] >= 2
    assert main(["stop", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stopped_driver"] == driver.pid
    driver.communicate(timeout=20)
    assert driver.returncode == 130
    wait_for(lambda: not marked(root), 5)
    assert main(["status", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["driver"] is None
    assert main(["stop", str(root)]) == 0
    assert "No driver was running" in capsys.readouterr().out

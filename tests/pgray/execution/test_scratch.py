"""Temporary folders of dead owners are removed with what is left of their Rays; all others stay."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pgray.execution import scratch
from pgray.execution.scratch import Scratch, remove_abandoned
from tests.pgray.conftest import wait_for

OWNER = """
import os, subprocess, sys
from pgray.execution import scratch
scratch._temp_folder = lambda: sys.argv[1]
own = scratch.Scratch()
more = {"host": {"pass_fds": [own.lock]}, "ray": {}}
word = f"--session-dir={own.root}/session"
child = subprocess.Popen(["sleep", "60"] if sys.argv[2] == "host" else [*sys.argv[3:], word], **more[sys.argv[2]])
print(own.root, child.pid, flush=True)
sys.stdin.read()
"""
RAY = [sys.executable, "-c", "import time; time.sleep(60)"]
Start = Callable[[str], "tuple[subprocess.Popen[str], Path, int]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a driver with a child that is Ray's host, or one of Ray's servers. Returns driver, folder, pid of the child."""
    monkeypatch.setattr(scratch, "_temp_folder", lambda: str(tmp_path))
    started: list[subprocess.Popen[str]] = []
    children: list[int] = []

    def begin(child: str) -> "tuple[subprocess.Popen[str], Path, int]":
        command = [sys.executable, "-c", OWNER, str(tmp_path), child, *RAY]
        started.append(subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert started[-1].stdout is not None
        folder, pid = started[-1].stdout.readline().split()
        children.append(int(pid))
        return started[-1], Path(folder), int(pid)

    yield begin
    for driver in started:
        driver.kill()
        driver.communicate()
    for pid in filter(psutil.pid_exists, children):
        psutil.Process(pid).kill()


def test_the_folder_of_a_killed_driver_goes_with_its_ray(start: Start, tmp_path: Path) -> None:
    driver, folder, server = start("ray")
    (tmp_path / "pgray-foreign").mkdir()
    own = Scratch()
    remove_abandoned()
    assert folder.is_dir()
    driver.kill()
    driver.wait()
    remove_abandoned()
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "pgray-foreign", own.root])
    assert not is_alive(server)
    own.close()
    assert not own.root.exists()


def test_the_folder_stays_while_rays_host_lives(start: Start) -> None:
    driver, folder, host = start("host")
    driver.kill()
    driver.wait()
    remove_abandoned()
    assert folder.is_dir()
    psutil.Process(host).kill()
    wait_for(lambda: not is_alive(host), 5)
    remove_abandoned()
    assert not folder.exists()


def is_alive(pid: int) -> bool:
    """Whether a process lives. In a container a dead orphan may stay a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

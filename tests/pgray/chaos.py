"""Run a sweep while killing its processes at random: driver, Ray's host, workers, supervisors, torchrun agents and ranks.

The driver is started again whenever it died; it must recover from everything else itself. All random numbers come from
one generator, but the moment at which a process is killed differs from machine to machine.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from pgray.execution.processes import of_ray
from pgray.execution.run_lock import is_held
from pgray.store.ledger import Ledger
from pgray.store.outcomes import read_result
from tests.pgray.conftest import marked, temporary_files
from trainer.records.layout import RunLayout

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("driver", "host", "worker", "supervisor", "agent", "rank")
HOSTS = ("pgray.execution.ray_host", "tests.pgray.fake_gpu_host")
_RECORDS = ("ledger.jsonl", "trials/*/result.json", "trained/*/training.json", "jobs/*/exit.json", "jobs/*/launch.json")
_SWEEP_TIMEOUT_S = 240.0  # for a sweep to end after the last kill
_AFTER_WRITE_SHARE = 0.7  # share of the kills that come just after a record was written
_STARTING_SHARE = 0.05  # share of the kills while no job runs: drivers start slowly, and the sweep must make progress
_WITH_HOST_SHARE = 0.3  # share of the drivers that are killed together with their host
_END_TIMEOUT_S = 10.0  # for processes and temporary files to go after the sweep


@dataclass
class Tally:
    """What happened in one or more chaos runs."""

    kills: Counter[str] = field(default_factory=Counter)  # by target, with the signal if it was not SIGKILL
    num_starts: int = 0  # of a driver
    num_sweeps: int = 0
    took_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.kills + other.kills,
            self.num_starts + other.num_starts,
            self.num_sweeps + other.num_sweeps,
            self.took_s + other.took_s,
            self.violations + other.violations,
        )

    def __str__(self) -> str:
        kills = ", ".join(f"{count} {target}" for target, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({kills}) in {self.num_sweeps} sweeps, driver started {self.num_starts} times, "
            f"{self.took_s:.0f} s, {len(self.violations)} violations"
        )


@dataclass
class ChaosRun:
    """Runs `sweep` into `runs/<its name>` until it is finished.

    Args:
        launcher: the sweep's launcher, for messages.
        max_kills: how many processes to kill.
        address: of a Ray that outlives the driver; None: each driver starts its own.
        ray_owner: pid of the ancestor of all workers of that Ray.
        mean_s: mean time between two kills.
        stop: send this signal, to the driver only, instead of SIGKILL to any process. With SIGHUP nobody reads any longer
            what the driver prints, as when a terminal is closed.
        temporary: the drivers' folder for temporary files, which no other run uses; the caller empties it.
    """

    sweep: Path
    runs: Path
    launcher: str
    random: random.Random
    max_kills: int
    address: str | None = None
    ray_owner: int | None = None
    mean_s: float = 1.0
    stop: signal.Signals | None = None
    tally: Tally = field(default_factory=Tally)
    temporary: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="c", dir="/tmp")))
    _sent: signal.Signals | None = None  # to the current driver
    _has_killed_host: bool = False  # of the current driver

    @property
    def root(self) -> Path:
        return self.runs / self.sweep.stem

    def run(self) -> Tally:
        began = time.monotonic()
        self.tally.num_sweeps = 1
        driver = self._start_driver()
        try:
            while (code := self._kill_until_end(driver)) != 0:
                self._check_exit(driver, code)
                driver = self._start_driver()
        except subprocess.TimeoutExpired:
            self._violation(f"the sweep was not finished {_SWEEP_TIMEOUT_S:.0f} s after the last kill")
        finally:
            driver.kill()
            driver.wait()
            if driver.stdout is not None:
                driver.stdout.close()
        self._check_end()
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.tally.took_s = time.monotonic() - began
        return self.tally

    def _start_driver(self) -> "subprocess.Popen[bytes]":
        where = ["--runs", str(self.runs), *(["--address", self.address] if self.address else [])]
        command = [sys.executable, "-m", "tests.pgray.drive", str(self.sweep), *where]
        # Tests in the background of a shell inherit that SIGINT is ignored, and the driver would respect that.
        restore_sigint = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
        with (self.runs / f"{self.sweep.stem}.driver-{self.tally.num_starts}.txt").open("wb") as file:
            output = subprocess.PIPE if self.stop == signal.SIGHUP else file
            driver = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=restore_sigint,
            )
        self.tally.num_starts += 1
        self._sent, self._has_killed_host = None, False
        return driver

    def _kill_until_end(self, driver: "subprocess.Popen[bytes]") -> int:
        """Kill processes until the driver has ended. Returns its exit code."""
        while self.tally.kills.total() < self.max_kills:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return driver.wait(self.random.expovariate(1 / self.mean_s))
            if self.random.random() < _AFTER_WRITE_SHARE:
                self._wait_for_a_write(driver)
            if self.stop:
                if driver.poll() is not None:  # it ended while this waited for a record
                    return driver.returncode
                if driver.stdout is not None:
                    driver.stdout.close()
                self._send("driver", psutil.Process(driver.pid), self.stop)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return driver.wait(60)
                self._violation(f"the driver did not end within 60 s of {self.stop.name}")
            if self._targets(driver).keys() <= {"driver", "host"} and self.random.random() > _STARTING_SHARE:
                continue
            # Sometimes several at once: one of them may be what supervises another.
            for _ in range(self.random.choice((1, 1, 1, 2, 3))):
                if targets := self._targets(driver):
                    kind = self.random.choice(list(targets))
                    self._send(kind, self.random.choice(targets[kind]), signal.SIGKILL)
                    if kind == "driver" and self.random.random() < _WITH_HOST_SHARE:
                        for host in targets.get("host", ()):
                            self._send("host", host, signal.SIGKILL)
        return driver.wait(_SWEEP_TIMEOUT_S)

    def _wait_for_a_write(self, driver: "subprocess.Popen[bytes]") -> None:
        """Wait until a random record is written, and a moment longer: races happen around these moments."""
        kind, deadline = self.random.choice(_RECORDS), time.monotonic() + 5
        before = self._num_bytes(kind)
        while self._num_bytes(kind) == before and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(self.random.choice((0.0, 0.02, 0.1, 0.4)) * self.random.random())

    def _num_bytes(self, kind: str) -> int:
        return sum(path.stat().st_size for path in self.root.glob(kind))

    def _send(self, kind: str, process: psutil.Process, number: signal.Signals) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            self.tally.kills[kind if number == signal.SIGKILL else f"{kind} {number.name}"] += 1
            if kind == "driver":
                self._sent = number
            self._has_killed_host |= kind == "host"

    def _targets(self, driver: "subprocess.Popen[bytes]") -> Mapping[str, list[psutil.Process]]:
        found: dict[str, list[psutil.Process]] = {kind: [] for kind in TARGETS}
        if driver.poll() is None:
            found["driver"].append(psutil.Process(driver.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            found["worker"] = [p for p in _below(self.ray_owner or driver.pid) if _name(p).startswith("ray::Implicit")]
        found["host"] = self._hosts()
        for process in marked(self.root):
            command = _command(process)
            is_agent = "torch.distributed.run" in command and "RANK" not in _environment(process)
            kind = "supervisor" if "pgray.execution.supervisor" in command else "agent" if is_agent else "rank"
            found[kind].append(process)
        return {kind: processes for kind, processes in found.items() if processes}

    def _hosts(self) -> list[psutil.Process]:
        """Find the processes in which Ray runs for this sweep's drivers, alive or dead."""
        commands = ((process, _command(process)) for process in psutil.process_iter())
        return [process for process, words in commands if {*HOSTS} & {*words} and f'"{self.root}"' in words[-1]]

    def _left_of_ray(self) -> list[psutil.Process]:
        return [*self._hosts(), *of_ray(self.temporary)]

    def _check_exit(self, driver: "subprocess.Popen[bytes]", code: int) -> None:
        """Check that a driver that ended early was sent a signal or has lost its host, and that its exit code says so."""
        output = (self.runs / f"{self.sweep.stem}.driver-{self.tally.num_starts - 1}.txt").read_text(errors="replace")
        path = RunLayout(self.root).driver_log
        log = path.read_text(errors="replace") if path.exists() else ""
        allowed = {4} if self._has_killed_host else set()
        if code == 4 and self.stop is None and "Ray was lost" not in output:
            self._violation(f"driver {driver.pid} does not say that its host was killed: {output[-2000:]}")
        if self._sent == signal.SIGKILL:
            allowed.add(-signal.SIGKILL)
        elif self._sent is not None:
            allowed.add(130)
            if marked(self.root) and not _gone(lambda: marked(self.root)):
                self._violation(f"processes outlived {self._sent.name} of the driver: {_described(marked(self.root))}")
            if is_held(self.root):
                self._violation("the lock outlived the driver")
            if f"start: process {driver.pid} " not in log:
                allowed.add(-self._sent)  # Python was still importing modules
        if code not in allowed or "Traceback" in output + log:
            self._violation(f"driver {driver.pid} ended with {code} after {self._sent}: {output[-2000:]}")

    def _check_end(self) -> None:
        ledger = Ledger(RunLayout(self.root).ledger)
        states, entries = ledger.states(), ledger.entries()
        finished = Counter(entry.trial_id for entry in entries if entry.state == "finished")
        for trial_id, entry in states.items():
            if entry.state != "finished" or finished[trial_id] != 1:
                self._violation(
                    f"{trial_id} is {entry.state} ({entry.reason}) with {finished[trial_id]} finished entries"
                )
            ends = [e.state for e in entries if e.trial_id == trial_id]
            if "finished" in ends and ends.index("finished") != len(ends) - 1:
                self._violation(f"{trial_id} had entries after it had finished: {ends}")
        for path in (self.root / "trials").glob("*/attempt-*/result.json"):
            with contextlib.suppress(ValueError):
                if json.loads(path.read_text())["trial_id"] == path.parent.parent.name:
                    self._violation(f"a finished trial was launched again: {path}")
        for path in (self.root / "trained").glob("*/overlaps.txt"):
            self._violation(f"{len(path.read_text().split())} launches on weights that another job worked on: {path}")
        if not _gone(self._left_of_ray):
            self._violation(f"a Ray outlived its driver: {_described(self._left_of_ray())}")
        if not _gone(partial(temporary_files, self.temporary)):
            self._violation(f"temporary files were left: {temporary_files(self.temporary)}")
        if not _gone(lambda: marked(self.root)):
            self._violation(f"processes outlived the sweep: {_described(marked(self.root))}")

    def _violation(self, what: str) -> None:
        self.tally.violations.append(f"{self.root} ({self.launcher}): {what}")


def results_of(root: Path) -> dict[str, str]:
    """Map each trial id to its valid result as text, without the commit, which may differ between two runs."""
    trials = {path: read_result(RunLayout(root).trial(path.name)) for path in (root / "trials").iterdir()}
    return {path.name: r.model_dump_json(exclude={"git_sha"}) for path, r in trials.items() if r is not None}


def _gone(search: Callable[[], list[Any]]) -> bool:
    deadline = time.monotonic() + _END_TIMEOUT_S
    while search():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _below(pid: int) -> Iterator[psutil.Process]:
    yield from psutil.Process(pid).children(recursive=True)


def _name(process: psutil.Process) -> str:
    return (_command(process) or [""])[0]


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _environment(process: psutil.Process) -> dict[str, str]:
    with contextlib.suppress(psutil.Error):
        return process.environ()
    return {}


def _described(found: list[psutil.Process]) -> list[str]:
    return [f"{process.pid} {' '.join(_command(process))[:120]}" for process in found]

"""Chaos: runs a sweep while killing its driver, workers, supervisors, agents and ranks at random, and counts what went wrong.

A storm is one sweep from its start to its end. The driver is started again whenever it died; everything else is the
driver's own business. Random numbers come from the storm's generator alone, but when a process is hit differs from
machine to machine.
"""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from pgray.execution.run_lock import is_held
from pgray.store.ledger import Ledger
from pgray.store.outcomes import read_result
from tests.pgray.conftest import marked
from trainer.records.layout import RunLayout

ROOT = Path(__file__).resolve().parents[2]
VICTIMS = ("driver", "worker", "supervisor", "agent", "rank")
_RECORDS = ("ledger.jsonl", "trials/*/result.json", "trained/*/training.json", "jobs/*/exit.json", "jobs/*/launch.json")
_PATIENCE_S = 240.0  # for a sweep to end when it is left in peace
_NEWS_SHARE = 0.7  # of the blows that fall just after something was written down
_STARTING_SHARE = 0.05  # of the blows that fall while no job runs; a driver takes long to start, and must get anywhere
_LAST_WORDS_S = 10.0  # for processes to go when all is over


@dataclass
class Tally:
    """What happened in one or more storms."""

    kills: Counter[str] = field(default_factory=Counter)  # by victim, or by signal where it was not SIGKILL
    starts: int = 0  # of a driver
    storms: int = 0
    took_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.kills + other.kills,
            self.starts + other.starts,
            self.storms + other.storms,
            self.took_s + other.took_s,
            self.violations + other.violations,
        )

    def __str__(self) -> str:
        hits = ", ".join(f"{count} {what}" for what, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} hits ({hits}) in {self.storms} sweeps, driver started {self.starts} times, "
            f"{self.took_s:.0f} s, {len(self.violations)} violations"
        )


@dataclass
class Storm:
    """Runs `sweep` into `runs/<its name>` until it is done.

    Args:
        start: `plain` or `torchrun`: what starts the ranks of a job, for messages; the sweep says it.
        address: of a Ray that outlives the driver; None: each driver has its own.
        ray_owner: pid above all workers of that Ray.
        hits: how many blows to deal, at most.
        mean_s: between two of them.
        stop: sent to the driver alone instead of SIGKILL to anyone.
    """

    sweep: Path
    runs: Path
    start: str
    random: random.Random
    hits: int
    address: str | None = None
    ray_owner: int | None = None
    mean_s: float = 1.0
    stop: signal.Signals | None = None
    tally: Tally = field(default_factory=Tally)
    _sent: signal.Signals | None = None  # to the driver that runs now
    _drivers: list[int] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.runs / self.sweep.stem

    def run(self) -> Tally:
        began = time.monotonic()
        self.tally.storms = 1
        driver = self._start_driver()
        try:
            while (code := self._blow(driver)) != 0:
                self._check_exit(driver, code)
                driver = self._start_driver()
        except subprocess.TimeoutExpired:
            self._complain(f"the sweep was not done {_PATIENCE_S:.0f} s after the last blow")
        finally:
            driver.kill()
            driver.wait()
        self._check_end()
        self.tally.took_s = time.monotonic() - began
        return self.tally

    def _start_driver(self) -> "subprocess.Popen[bytes]":
        where = ["--runs", str(self.runs), *(["--address", self.address] if self.address else [])]
        command = [sys.executable, "-m", "tests.pgray.drive", str(self.sweep), *where]
        # A test run in the background of a shell has inherited that SIGINT is ignored, and the driver would respect it.
        heeds_ctrl_c = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
        with (self.runs / f"{self.sweep.stem}.driver-{self.tally.starts}.txt").open("wb") as output:
            driver = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, preexec_fn=heeds_ctrl_c)
        self.tally.starts += 1
        self._drivers.append(driver.pid)
        self._sent = None
        return driver

    def _blow(self, driver: "subprocess.Popen[bytes]") -> int:
        """Deal blows until the driver has ended. Returns its exit code."""
        while self.tally.kills.total() < self.hits:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return driver.wait(self.random.expovariate(1 / self.mean_s))
            if self.random.random() < _NEWS_SHARE:
                self._await_news(driver)
            if self.stop:
                self._hit("driver", psutil.Process(driver.pid), self.stop)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return driver.wait(60)
                self._complain(f"the driver did not end within 60 s of {self.stop.name}")
            if self._victims(driver).keys() == {"driver"} and self.random.random() > _STARTING_SHARE:
                continue
            # Now and then several at once: what watches over the one may be the other.
            for _ in range(self.random.choice((1, 1, 1, 2, 3))):
                if victims := self._victims(driver):
                    kind = self.random.choice(list(victims))
                    self._hit(kind, self.random.choice(victims[kind]), signal.SIGKILL)
        return driver.wait(_PATIENCE_S)

    def _await_news(self, driver: "subprocess.Popen[bytes]") -> None:
        """Wait until a record of some kind is written, and a moment longer: much is decided in few moments."""
        kind, deadline = self.random.choice(_RECORDS), time.monotonic() + 5
        before = self._written(kind)
        while self._written(kind) == before and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(self.random.choice((0.0, 0.02, 0.1, 0.4)) * self.random.random())

    def _written(self, kind: str) -> int:
        return sum(path.stat().st_size for path in self.root.glob(kind))

    def _hit(self, kind: str, process: psutil.Process, number: signal.Signals) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            self.tally.kills[kind if number == signal.SIGKILL else f"{kind} {number.name}"] += 1
            if kind == "driver":
                self._sent = number

    def _victims(self, driver: "subprocess.Popen[bytes]") -> Mapping[str, list[psutil.Process]]:
        found: dict[str, list[psutil.Process]] = {kind: [] for kind in VICTIMS}
        if driver.poll() is None:
            found["driver"].append(psutil.Process(driver.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            found["worker"] = [p for p in _below(self.ray_owner or driver.pid) if _name(p).startswith("ray::Implicit")]
        for process in marked(self.root):
            command = _command(process)
            is_agent = "torch.distributed.run" in command and "RANK" not in _environment(process)
            kind = "supervisor" if "pgray.execution.supervisor" in command else "agent" if is_agent else "rank"
            found[kind].append(process)
        return {kind: processes for kind, processes in found.items() if processes}

    def _check_exit(self, driver: "subprocess.Popen[bytes]", code: int) -> None:
        """A driver that ended without being done: by what was sent, with the exit code that goes with it."""
        output = (self.runs / f"{self.sweep.stem}.driver-{self.tally.starts - 1}.txt").read_text(errors="replace")
        if self._sent == signal.SIGKILL:
            allowed: tuple[int, ...] = (-signal.SIGKILL,)
        elif self._sent is not None:
            allowed = (130,)
            if marked(self.root) and not _gone(lambda: marked(self.root)):
                self._complain(f"processes outlived {self._sent.name} to the driver: {_described(marked(self.root))}")
            if is_held(self.root):
                self._complain("the lock outlived the driver")
        else:
            allowed = ()
        is_starting = self._sent in (signal.SIGINT, signal.SIGTERM) and " trials: " not in output
        if is_starting and code == -self._sent:
            return  # so early that Python itself was still importing
        if code not in allowed or "Traceback" in output:
            self._complain(f"driver {driver.pid} ended with {code} after {self._sent}: {output[-2000:]}")

    def _check_end(self) -> None:
        ledger = Ledger(RunLayout(self.root).ledger)
        states, entries = ledger.states(), ledger.entries()
        finished = Counter(entry.trial_id for entry in entries if entry.state == "finished")
        for trial_id, entry in states.items():
            if entry.state != "finished" or finished[trial_id] != 1:
                self._complain(
                    f"{trial_id} is {entry.state} ({entry.reason}) with {finished[trial_id]} finished entries"
                )
            ends = [e.state for e in entries if e.trial_id == trial_id]
            if "finished" in ends and ends.index("finished") != len(ends) - 1:
                self._complain(f"{trial_id} went on after it had finished: {ends}")
        for path in (self.root / "trials").glob("*/attempt-*/result.json"):
            with contextlib.suppress(ValueError):
                if json.loads(path.read_text())["trial_id"] == path.parent.parent.name:
                    self._complain(f"a finished trial was launched again: {path}")
        for path in (self.root / "trained").glob("*/overlaps.txt"):
            self._complain(f"{len(path.read_text().split())} launches on weights that another job worked on: {path}")
        for pid in self._drivers:
            if self.address is None and not _gone(partial(_of_own_ray, pid)):
                self._complain(f"the Ray of driver {pid} outlived it: {_described(_of_own_ray(pid))}")
        if not _gone(lambda: marked(self.root)):
            self._complain(f"processes outlived the sweep: {_described(marked(self.root))}")

    def _complain(self, what: str) -> None:
        self.tally.violations.append(f"{self.root} ({self.start}): {what}")


def results_of(root: Path) -> dict[str, str]:
    """Trial id -> its valid result as text, without what may differ between two runs: the commit."""
    trials = {path: read_result(RunLayout(root).trial(path.name)) for path in (root / "trials").iterdir()}
    return {path.name: r.model_dump_json(exclude={"git_sha"}) for path, r in trials.items() if r is not None}


def _gone(search: Callable[[], list[psutil.Process]]) -> bool:
    deadline = time.monotonic() + _LAST_WORDS_S
    while search():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _below(pid: int) -> Iterator[psutil.Process]:
    yield from psutil.Process(pid).children(recursive=True)


def _of_own_ray(driver: int) -> list[psutil.Process]:
    """Processes of the Ray that a dead driver had started: its session is named after the driver's pid."""
    mark, found = f"_{driver}/", []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            words = [*process.cmdline(), *(file.path for file in process.open_files())]
            if any("/session_" in word and mark in f"{word}/" for word in words):
                found.append(process)
    return found


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

"""Shared by the driver's tests: one Ray, a tiny data folder, sweeps that the fake trainer can run, and process counting."""

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pgray.execution import processes
from pgray.execution.launchers.base import LaunchSettings
from pgray.scheduler.progress import ProgressReporter
from trainer.config import Config
from trainer.presets.resolve import build_config
from trainer.records.fingerprint import train_fingerprint, trial_id
from trainer.records.job import Job, TrialSpec
from trainer.run.config import Machine

if TYPE_CHECKING:
    from tests.pgray.fake_executor import FakeExecutor

FAKE = str(Path(__file__).with_name("fake_trainer.py"))
PLAIN = (sys.executable, FAKE)
VOCAB = 320

SWEEP = """
name: {name}
question: Does the driver do what it says?
preset: cpu-smoke
set: {{data.path: {data}, model.vocab_size: {vocab}, train.iterations: {iterations}, {set}}}
seeds: {seeds}
control: int8
arms:
{arms}
"""

ARMS = """
  int8: {}
  int6: {quant.bits: {mlp: 6, attn: 6}}
  qat: {qat.enabled: true, quant.bits.mlp: 4}
"""


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    """One Ray for all tests, since starting it takes seconds. Its four GPUs are only numbers."""
    from pgray.execution.cluster import prepare_ray

    prepare_ray()
    import ray

    # Not a cluster that somebody else has started on this machine.
    size = {"num_cpus": 2, "num_gpus": 4, "object_store_memory": 100 * 1024**2}
    ray.init("local", include_dashboard=False, log_to_driver=False, **size)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def write_data(folder: Path) -> Path:
    """A data folder that passes every check: a tokenizer trained on the spot, and shards of its tokens."""
    import numpy as np

    from pgray.data.tokenizer import encode_documents, train_tokenizer
    from trainer.data.shards import write_shard

    folder.mkdir(exist_ok=True)
    words = re.findall(r"\w+", "the quick brown fox jumps over a lazy dog while forty wizards box and vex in dim light")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(words)) + "." for _ in range(300)]
    model = train_tokenizer(texts, VOCAB)
    (folder / "tokenizer.model").write_bytes(model)
    tokens = np.array([t for document in encode_documents(model, texts) for t in document], dtype=np.uint16)
    write_shard(folder / "fineweb_train_000000.bin", tokens[:-2000])
    write_shard(folder / "fineweb_val_000000.bin", tokens[-2000:])
    return folder


@pytest.fixture
def write_sweep(tmp_path: Path, data: Path) -> Callable[..., Path]:
    """Write a sweep file: `write_sweep(arms=..., seeds="[1, 2]", set="optim.ns_steps: 2", name="x")`."""

    def write(
        arms: str = ARMS,
        seeds: str = "[1, 2]",
        set: str = "optim.ns_steps: 1",
        name: str = "test",
        iterations: int = 4,
        launcher: str = "plain",
    ) -> Path:
        path = tmp_path / f"{name}.yaml"
        asked = {"set": set, "seeds": seeds, "arms": arms, "iterations": iterations}
        path.write_text(SWEEP.format(vocab=VOCAB, name=name, data=data, **asked) + f"launcher: {launcher}\n")
        return path

    return write


@pytest.fixture
def make_job() -> Callable[..., Job]:
    """A job of one trial: `make_job({"train.iterations": 4})`."""

    def make(overrides: dict[str, Any] | None = None, job_id: str = "job-0") -> Job:
        defaults = {"train.iterations": 4, "optim.ns_steps": 1, "optim.muon_momentum_steps": 0}
        config: Config = build_config({**defaults, **(overrides or {})}, "test")
        fingerprint = train_fingerprint(config, "d", "t", 1, "cpu")
        spec = TrialSpec(trial_id=trial_id("arm", config, fingerprint), config=config)
        return Job(job_id=job_id, train_fingerprint=fingerprint, trials=[spec])

    return make


@pytest.fixture
def launch_plain(tmp_path: Path) -> LaunchSettings:
    return LaunchSettings(tmp_path / "run", Machine(launcher="plain"), PLAIN, grace_s=3.0)


@pytest.fixture
def launch_torchrun(tmp_path: Path) -> LaunchSettings:
    return LaunchSettings(tmp_path / "run", Machine(cpus=2, nproc=2), PLAIN, grace_s=5.0)


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> "Iterator[FakeExecutor]":
    """`run_sweep` runs its jobs in this process, two at a time, without Ray, and draws no report (that takes seconds)."""
    from tests.pgray.fake_executor import FakeExecutor

    fake = FakeExecutor()
    fake.install(monkeypatch)
    monkeypatch.setattr("pgray.scheduler.driver._write_report", lambda *_: None)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background ignores Ctrl-C
    yield fake
    signal.signal(signal.SIGINT, before)


class RecordedProgress(ProgressReporter):
    """Keeps the lines that were shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def wait_for(what: Callable[[], Any], patience_s: float = 60.0) -> Any:
    """Poll until `what()` is true and return it; fails with its name after the patience."""
    deadline = time.monotonic() + patience_s
    while not (value := what()):
        assert time.monotonic() < deadline, f"waited {patience_s} s in vain for {what}"
        time.sleep(0.05)
    return value


def marked(run_root: Path) -> list[psutil.Process]:
    """Return live processes of this run folder, and its supervisors. At the end of a run there must be none.

    A supervisor writes its record before it exits, so give it a moment: `wait_for(lambda: not marked(root))`.
    """
    supervisors = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()  # a zombie has none
            if "pgray.execution.supervisor" in command and any(f"{run_root}/" in word for word in command):
                supervisors.append(process)
        except psutil.Error:
            continue
    return processes.of_run(str(run_root)) + supervisors


def temporary_files(folder: Path) -> list[str]:
    """Return what drivers and Ray have left in a folder, except locks; torch has a cache of its own there."""
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if name != "pgray-locks" and not name.startswith("torchinductor_")]

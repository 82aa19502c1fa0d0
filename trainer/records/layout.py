"""Paths of a run folder, and how files appear in it: whole or not at all.

RUN/ sweep.yaml provenance.json ledger.jsonl driver.log table.{parquet,csv,md} report.html; for a search study.json
     trained/<train_fingerprint>/   training.json, <average>.safetensors, events.jsonl, checkpoint
     trials/<trial_id>/             config.json result.json failure.json artifact.pgz events.jsonl log.txt attempt-N/
     jobs/<job_id>/                 {job,launch,supervisor,exit}.json log.txt: how it was launched and how it ended
     code/<sha>/                    the sources that a launch ran from
     imported/<trial_id>.json       a row read from a foreign run's log, with the file and line of every value
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunLayout:
    root: Path

    @property
    def sweep(self) -> Path:
        return self.root / "sweep.yaml"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def driver_log(self) -> Path:
        return self.root / "driver.log"

    @property
    def study(self) -> Path:
        """What a search has found, for people and the report; rewritten from the ledger at each end of a run."""
        return self.root / "study.json"

    def table(self, suffix: str) -> Path:
        return self.root / f"table.{suffix}"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def trained(self, train_fingerprint: str) -> "TrainedLayout":
        return TrainedLayout(self.root / "trained" / train_fingerprint)

    def trial(self, trial_id: str) -> "TrialLayout":
        return TrialLayout(self.root / "trials" / trial_id)

    def code(self, sha: str) -> Path:
        return self.root / "code" / sha

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    def job(self, job_id: str) -> "JobLayout":
        return JobLayout(self.jobs / job_id)

    @property
    def imports(self) -> Path:
        return self.root / "imported"

    def imported(self, trial_id: str) -> Path:
        return self.imports / f"{trial_id}.json"


@dataclass(frozen=True)
class TrainedLayout:
    root: Path

    @property
    def record(self) -> Path:
        """TrainingRecord; written last, so its presence says that the training run is complete."""
        return self.root / "training.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint"

    def weights(self, average_key: str) -> Path:
        return self.root / f"{average_key}.safetensors"


@dataclass(frozen=True)
class TrialLayout:
    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def result(self) -> Path:
        """TrialResult; written last, so its presence says that the trial is finished."""
        return self.root / "result.json"

    @property
    def failure(self) -> Path:
        return self.root / "failure.json"

    @property
    def artifact(self) -> Path:
        return self.root / "artifact.pgz"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"


@dataclass(frozen=True)
class JobLayout:
    root: Path

    @property
    def job(self) -> Path:
        return self.root / "job.json"

    def node(self, rank: int, num_nodes: int = 1) -> "NodeLayout":
        return NodeLayout(self.root, rank, num_nodes)

    @property
    def launch(self) -> Path:
        return self.node(0).launch

    @property
    def supervisor(self) -> Path:
        return self.node(0).supervisor

    @property
    def log(self) -> Path:
        return self.node(0).log

    @property
    def failure(self) -> Path:
        """JobFailure written by the trainer itself: what it knows about why it stopped."""
        return self.root / "failure.json"

    @property
    def kill(self) -> Path:
        """Asks the supervisor to end the job for good, and says why: `{"reason": ...}`. Written by the driver."""
        return self.root / "kill.json"

    @property
    def exit(self) -> Path:
        """Written last by the supervisor: exit code, signal, times, and what it had to kill. Of several nodes, all."""
        return self.root / "exit.json"


@dataclass(frozen=True)
class NodeLayout:
    """What one node of a job leaves: `log.txt` and so on of the first, `log-1.txt` and so on of the others."""

    root: Path
    rank: int
    num_nodes: int

    @property
    def launch(self) -> Path:
        """What the supervisor was told: command, the token that the job's processes carry, limits."""
        return self._file("launch", "json")

    @property
    def supervisor(self) -> Path:
        """Which process supervises this node's part; written by itself when it begins."""
        return self._file("supervisor", "json")

    @property
    def log(self) -> Path:
        return self._file("log", "txt")

    @property
    def exit(self) -> Path:
        """How this node's part ended: of a single node the job's exit, else `exit-0.json` and so on."""
        return self.root / ("exit.json" if self.num_nodes == 1 else f"exit-{self.rank}.json")

    def _file(self, stem: str, suffix: str) -> Path:
        return self.root / f"{stem}{f'-{self.rank}' if self.rank else ''}.{suffix}"

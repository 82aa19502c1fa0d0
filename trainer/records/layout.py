"""Paths of a run folder.

RUN/ sweep.yaml provenance.json ledger.jsonl driver.log table.{parquet,csv,md} report.html; for a search study.json
     trained/<train_fingerprint>/   training.json, <average>.safetensors, events.jsonl, checkpoint
     trials/<trial_id>/             config.json result.json failure.json artifact.pgz events.jsonl log.txt attempt-N/
     jobs/<job_id>/                 {job,launch,supervisor,exit}.json log.txt: how it was launched and how it ended
     code/<sha>/                    the sources that a launch ran from
     imported/<trial_id>.json       a row read from another project's log, with the file and line of every value
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


class _Entry:
    """A path of fixed name inside a layout's `root`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, layout: Any, owner: type) -> Path:
        root: Path = layout.root
        return root / self._name


class _NodeEntry(_Entry):
    """The same with `-<rank>` before the suffix, except for rank 0."""

    def __get__(self, layout: Any, owner: type) -> Path:
        path = super().__get__(layout, owner)
        return path.with_stem(f"{path.stem}-{layout.rank}") if layout.rank else path


@dataclass(frozen=True)
class _Layout:
    root: Path


class RunLayout(_Layout):
    sweep = _Entry("sweep.yaml")
    provenance = _Entry("provenance.json")
    ledger = _Entry("ledger.jsonl")
    study = _Entry("study.json")  # what a search has found; rewritten from the ledger at each end of a run
    report = _Entry("report.html")
    driver_log = _Entry("driver.log")
    jobs = _Entry("jobs")
    imports = _Entry("imported")

    def table(self, suffix: str) -> Path:
        return self.root / f"table.{suffix}"

    def trained(self, train_fingerprint: str) -> "TrainedLayout":
        return TrainedLayout(self.root / "trained" / train_fingerprint)

    def trial(self, trial_id: str) -> "TrialLayout":
        return TrialLayout(self.root / "trials" / trial_id)

    def job(self, job_id: str) -> "JobLayout":
        return JobLayout(self.jobs / job_id)

    def code(self, sha: str) -> Path:
        return self.root / "code" / sha

    def imported(self, trial_id: str) -> Path:
        return self.imports / f"{trial_id}.json"


class TrainedLayout(_Layout):
    record = _Entry("training.json")  # TrainingRecord; written last, so it exists only for a complete training run
    events = _Entry("events.jsonl")
    checkpoint = _Entry("checkpoint")

    def weights(self, average_key: str) -> Path:
        return self.root / f"{average_key}.safetensors"


class TrialLayout(_Layout):
    config = _Entry("config.json")
    result = _Entry("result.json")  # TrialResult; written last, so it exists only for a finished trial
    failure = _Entry("failure.json")
    artifact = _Entry("artifact.pgz")
    events = _Entry("events.jsonl")
    log = _Entry("log.txt")


class JobLayout(_Layout):
    job = _Entry("job.json")
    launch = _Entry("launch.json")
    supervisor = _Entry("supervisor.json")
    log = _Entry("log.txt")
    failure = _Entry("failure.json")  # JobFailure, written by the trainer
    kill = _Entry("kill.json")  # `{"reason": ...}`, written by the driver: the supervisor ends the job for good
    exit = _Entry(
        "exit.json"
    )  # written last by the supervisor: exit code, signal, times, killed processes of all nodes

    def node(self, rank: int, num_nodes: int = 1) -> "NodeLayout":
        return NodeLayout(self.root, rank, num_nodes)


@dataclass(frozen=True)
class NodeLayout(_Layout):
    """Files of one node of a job: `log.txt` etc. for the first node, `log-1.txt` etc. for the others."""

    rank: int
    num_nodes: int

    launch = _NodeEntry(
        "launch.json"
    )  # input of the supervisor: command, the token that marks the job's processes, limits
    supervisor = _NodeEntry("supervisor.json")  # which process supervises this node; written when it starts
    log = _NodeEntry("log.txt")

    @property
    def exit(self) -> Path:
        """How this node ended: `exit.json` in a job with one node, otherwise `exit-0.json` etc."""
        return self.root / ("exit.json" if self.num_nodes == 1 else f"exit-{self.rank}.json")

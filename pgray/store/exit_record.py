"""How one node of a job ended, and how the job ended. Supervisors write these records last.

On several nodes each supervisor writes a record of its own, and ends its processes when another node has failed. The
supervisor of the first node waits for all of them and writes the job's `exit.json`.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TypedDict

from pgray.store.process_records import SupervisorSpec, read_record
from trainer.records.files import write_json

_END_S = 10.0  # beyond the grace period, for killing what remains and for a slow shared folder
_TICK_S = 0.1


class StopReason(StrEnum):
    """Why a job was stopped before its command ended by itself."""

    TIMEOUT = "timeout"  # it ran longer than its time limit
    STALL = "stall"  # it printed nothing for too long
    KILLED = "killed"  # the driver asked for it: a stopping rule
    SIGTERM = "sigterm"  # its supervisor received the signal
    LIFELINE = "lifeline"  # its Ray worker died, or closed the lifeline
    SUPERVISOR = "supervisor"  # its supervisor died
    PEER = "peer"  # another node of the job failed
    LOST = "lost"  # a node disappeared and left no record
    REPLACED = "replaced"  # another driver took over before the command was started


class KilledProcess(TypedDict):
    pid: int
    command: str


@dataclass(frozen=True)
class ExitRecord:
    """How one node ended. None = unknown. Times are in seconds since the epoch."""

    code: int | None = None  # exit code of the command; below zero: the signal that killed it
    stop: str | None = None  # a StopReason, or one that a newer version wrote
    error: str | None = None  # why the command could not be started or followed
    node: str | None = None  # host name
    ray_node: str | None = None
    rank: int = 0
    log: str = "log.txt"
    timeout_s: float = 0.0
    stall_s: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    killed: list[KilledProcess] = field(default_factory=list)  # processes that outlived the command
    survivors: list[int] = field(default_factory=list)  # pids that could not be killed

    @property
    def is_failure(self) -> bool:
        return bool(self.stop or self.error or self.code != 0)

    @property
    def duration_s(self) -> float | None:
        return None if self.started_at is None or self.ended_at is None else self.ended_at - self.started_at


def has_failed_peer(spec: SupervisorSpec) -> bool:
    """Whether another node of the job has failed."""
    peers = (read_record(ExitRecord, node.exit) for node in spec.nodes if node.rank != spec.rank)
    return any(peer is not None and peer.is_failure for peer in peers)


def write_exit(spec: SupervisorSpec, record: ExitRecord, must_end: Callable[[], bool]) -> None:
    """Write how a node ended. On the first of several nodes, also wait for the others and write how the job ended.

    Args:
        spec: of the node's supervisor.
        record: how the node ended.
        must_end: returns whether the job must end now, so that the other nodes are waited for a limited time.
    """
    if not spec.run.root.is_dir():
        return  # renamed or deleted: writing would make a new one
    record = replace(record, rank=spec.rank, ray_node=spec.ray_node, log=spec.node.log.name)
    write_json(spec.node.exit, asdict(record))
    if spec.rank > 0 or spec.num_nodes == 1:
        return
    files, deadline = [node.exit for node in spec.nodes], math.inf
    while not all(file.exists() for file in files) and time.monotonic() < deadline:
        if deadline == math.inf and (must_end() or record.is_failure or has_failed_peer(spec)):
            deadline = time.monotonic() + spec.grace_s + _END_S
        time.sleep(_TICK_S)
    nodes = [read_record(ExitRecord, file) or _lost(rank) for rank, file in enumerate(files)]
    write_json(spec.job.exit, {**asdict(_job_record(nodes)), "nodes": [asdict(node) for node in nodes]})


def _lost(rank: int) -> ExitRecord:
    return ExitRecord(rank=rank, stop=StopReason.LOST, error=f"node {rank} of the job left no exit record")


def _job_record(nodes: Sequence[ExitRecord]) -> ExitRecord:
    """Return the record of the node that failed first, with the times and the killed processes of all nodes."""
    failed = [node for node in nodes if node.is_failure and node.stop != StopReason.PEER]
    return replace(
        min(failed, key=lambda node: math.inf if node.ended_at is None else node.ended_at, default=nodes[0]),
        node=nodes[0].node,
        ray_node=nodes[0].ray_node,
        started_at=min((node.started_at for node in nodes if node.started_at is not None), default=None),
        ended_at=max((node.ended_at for node in nodes if node.ended_at is not None), default=None),
        killed=[process for node in nodes for process in node.killed],
        survivors=[pid for node in nodes for pid in node.survivors],
    )

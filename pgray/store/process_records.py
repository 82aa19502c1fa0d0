"""Records that the processes of a sweep leave for each other: who they are, and what a supervisor has to do.

Plain dataclasses: a job waits for its supervisor to start, and importing pydantic would take longer than the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from trainer.records.files import read_json
from trainer.records.layout import JobLayout, NodeLayout, RunLayout

DRIVER_FILE = ".driver.json"
RAY_FILE = ".ray.json"
_Record = TypeVar("_Record")


def read_record(cls: type[_Record], path: Path) -> _Record | None:
    """Read a JSON file into a dataclass. None where the file is missing, broken, or lacks a required key."""
    return parse_record(cls, read_json(path))


def parse_record(cls: type[_Record], values: Mapping[str, Any]) -> _Record | None:
    """Build a dataclass; ignores unknown keys and uses defaults, since run folders are of many versions."""
    known = {field.name: values[field.name] for field in fields(cls) if field.name in values}  # type: ignore[arg-type]
    try:
        return cls(**known) if known else None
    except TypeError:
        return None


@dataclass(frozen=True)
class ProcessIdentity:
    """Identifies a process for longer than its pid: pids are reused, and every machine and container has its own."""

    pid: int
    created: float  # seconds since the epoch
    host: str
    namespace: str = ""  # of pids


@dataclass(frozen=True)
class Driver(ProcessIdentity):
    """The process that holds a run folder's lock. `verb`: the command that it runs, such as `run` or `stop`."""

    since: float = 0.0  # seconds since the epoch
    verb: str = "run"
    run: str = ""  # the run folder


def read_driver(root: Path) -> Driver | None:
    """Return the driver that holds the lock of this run folder, or that died while it held it; None if there is none."""
    return read_record(Driver, root / DRIVER_FILE)


@dataclass(frozen=True)
class RayHost(ProcessIdentity):
    """The process in which a driver's Ray runs. `scratch`: the folder of Ray's temporary files."""

    scratch: str = ""
    run: str = ""  # the run folder


def is_copied(run: str, root: Path) -> bool:
    """Whether a record in the folder `root` was written for another folder `run`: then `root` is a copy of it.

    A folder that was moved is not a copy: the other one does not exist.
    """
    written_for = Path(run)
    return bool(run) and written_for.is_dir() and root.is_dir() and not written_for.samefile(root)


@dataclass(frozen=True)
class SupervisorSpec:
    """What the supervisor of one node of a job is to start and to watch (`launch.json`). All paths are absolute."""

    token: str  # in the environment of every process of the job
    run_dir: str = ""
    job_id: str = ""
    trial_ids: list[str] = field(default_factory=list)
    rank: int = 0  # of the node
    num_nodes: int = 1
    ray_node: str | None = None  # Ray's id of the node
    code: str = ""  # the folder that the job's code comes from
    command: list[str] = field(default_factory=list)
    driver: Driver | None = None
    timeout_s: float = 0.0
    stall_s: float = 0.0
    grace_s: float = 0.0

    @classmethod
    def read(cls, path: Path) -> "SupervisorSpec | None":
        values = read_json(path)
        return parse_record(cls, {**values, "driver": parse_record(Driver, values.get("driver") or {})})

    @property
    def run(self) -> RunLayout:
        return RunLayout(Path(self.run_dir))

    @property
    def job(self) -> JobLayout:
        return self.run.job(self.job_id)

    @property
    def nodes(self) -> list[NodeLayout]:
        """The files of all nodes, by rank."""
        return [self.job.node(rank, self.num_nodes) for rank in range(self.num_nodes)]

    @property
    def node(self) -> NodeLayout:
        return self.nodes[self.rank]

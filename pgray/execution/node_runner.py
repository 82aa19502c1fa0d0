"""Holds one node's part of a job: starts its supervisor, keeps the lifeline, and speaks for the supervisor if it dies.

The life of the process that holds is the lifeline: it has the write end of a pipe that the supervisor reads, so that
whatever ends the process ends the part.
"""

import os
import select
import subprocess
import sys
import time
from typing import Any

from pgray.execution import processes
from pgray.execution import run_lock as lock
from pgray.execution.launchers import base as launch
from pgray.execution.launchers.base import LaunchSettings, NodeRendezvous
from pgray.store.exit_record import write_exit
from trainer.errors import InputError
from trainer.records.files import write_json
from trainer.records.job import Job
from trainer.records.layout import RunLayout
from trainer.records.results import JobFailure


def part_spec(
    job: Job, shared: LaunchSettings, place: NodeRendezvous, token: str, ray_node: str | None = None
) -> dict[str, Any]:
    """What the supervisor of one node's part is told, but for the command. `ray_node`: Ray's id of the node."""
    layout, num_nodes = RunLayout(shared.run_root), shared.machine.nodes
    records = layout.job(job.job_id)
    nodes = [records.node(rank, num_nodes) for rank in range(num_nodes)]
    node, is_first = nodes[place.rank], place.rank == 0
    return {
        "token": token,
        "rank": place.rank,
        "ray_node": ray_node,
        "run_dir": str(shared.run_root),
        "code": str(shared.code),
        "command": [],
        "cwd": str(records.root),
        "log": str(node.log),
        "log_links": [str(layout.trial(trial.trial_id).log) for trial in job.trials] if is_first else [],
        "heard_logs": [str(node.log) for node in nodes] if is_first else [],  # only rank 0 of them all speaks
        "pid_file": str(node.supervisor),
        "exit_file": str(node.exit),
        "exits": [str(node.exit) for node in nodes] if num_nodes > 1 else [],
        "job_exit": str(records.exit),
        "kill_file": str(records.kill),
        "driver": shared.driver,
        "driver_file": str(shared.run_root / lock.OWNER),
        "timeout_s": shared.job_timeout_s(job),
        "stall_s": shared.stall_s,
        "grace_s": shared.grace_s,
    }


class NodeRunner:
    """One node's part of a job, begun."""

    def __init__(
        self, job: Job, shared: LaunchSettings, place: NodeRendezvous, token: str, ray_node: str | None = None
    ) -> None:
        records = RunLayout(shared.run_root).job(job.job_id)
        self._node = records.node(place.rank, shared.machine.nodes)
        self._spec = part_spec(job, shared, place, token, ray_node)
        self._lifeline: int | None = None
        try:
            self._spec["command"] = launch.command(shared, records.job, place, token)
        except InputError as error:
            write_json(records.failure, JobFailure(kind=error.kind, reason=str(error)).model_dump())
            self._write_exit(stop=None, error=str(error), killed=[], survivors=[])
            return
        write_json(self._node.launch, self._spec)
        self._lifeline = self._start(launch.environment(os.environ, shared, place))

    def is_over(self) -> bool:
        """Whether this part has ended; once its supervisor died, what it left is ended here."""
        exit_file = self._node.exit
        if not exit_file.exists() and not self._is_held() and not exit_file.exists():
            killed, survivors = processes.end_all(lambda: processes.of_job(self._spec["token"], self._spec["rank"]))
            self._write_exit(stop="supervisor", error=None, killed=killed, survivors=survivors)
        return exit_file.exists()

    def close(self) -> None:
        """Close the lifeline: what still runs must end."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def _start(self, environment: dict[str, str]) -> int:
        """Start the supervisor, which leaves this process's tree. Returns the lifeline."""
        read_end, lifeline = os.pipe()  # neither end is inherited by other children
        with (self._node.root / "supervisor.txt").open("ab") as output:
            starter = subprocess.Popen(
                [sys.executable, "-m", "pgray.execution.supervisor", str(self._node.launch)],
                stdin=read_end,
                stdout=output,
                stderr=output,
                cwd=self._node.root,
                env=environment,
                start_new_session=True,
            )
        os.close(read_end)
        starter.wait()
        return lifeline

    def _is_held(self) -> bool:
        """Whether the supervisor lives: it alone holds the other end."""
        if self._lifeline is None:
            return False
        poll = select.poll()
        poll.register(self._lifeline, 0)  # an error is always told
        return not poll.poll(0)

    def _write_exit(self, **fields: Any) -> None:
        now = time.time()
        started = self._node.launch.stat().st_mtime if self._node.launch.exists() else now
        record = {"code": None, "node": processes.identity()["host"], "started_at": started, "ended_at": now}
        write_exit(self._spec, {**record, **fields}, is_cut=lambda: True)

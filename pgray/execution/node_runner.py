"""Run one node of a job: start its supervisor, keep the lifeline open, write the exit record if the supervisor dies.

The lifeline is a pipe: this process has the write end, the supervisor the read end. Whatever ends this process closes
the pipe, and the supervisor then ends the node's processes.
"""

import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, replace

from pgray.execution import processes
from pgray.execution.launchers.base import LaunchSettings, NodeRendezvous, find_launchers
from pgray.store.exit_record import ExitRecord, StopReason, write_exit
from pgray.store.process_records import SupervisorSpec
from trainer.errors import InputError
from trainer.records.files import write_json
from trainer.records.job import Job
from trainer.records.results import JobFailure


def supervisor_spec(job: Job, settings: LaunchSettings, rendezvous: NodeRendezvous) -> SupervisorSpec:
    """Return what the supervisor of one node needs, except for the command."""
    return SupervisorSpec(
        token=rendezvous.token,
        run_dir=str(settings.run_root),
        job_id=job.job_id,
        trial_ids=[trial.trial_id for trial in job.trials],
        rank=rendezvous.rank,
        num_nodes=settings.machine.nodes,
        ray_node=rendezvous.ray_node,
        code=str(settings.code),
        driver=settings.driver,
        timeout_s=settings.job_timeout_s(job),
        stall_s=settings.stall_s,
        grace_s=settings.grace_s,
    )


class NodeRunner:
    """Starts one node of a job, and runs it until it is over or closed."""

    def __init__(self, job: Job, settings: LaunchSettings, rendezvous: NodeRendezvous) -> None:
        self._spec = supervisor_spec(job, settings, rendezvous)
        self._node, records = self._spec.node, self._spec.job
        self._lifeline: int | None = None
        launcher = find_launchers()[settings.machine.launcher]
        try:
            command = launcher.command(settings, records.job, rendezvous)
        except InputError as error:
            write_json(records.failure, JobFailure(kind=error.kind, reason=str(error)).model_dump())
            self._write_exit(ExitRecord(error=str(error)))
            return
        write_json(self._node.launch, asdict(replace(self._spec, command=command)))
        self._lifeline = self._start(launcher.environment(os.environ, settings, rendezvous))

    def is_over(self) -> bool:
        """Whether this node has ended. If its supervisor died, kill what it left and write the exit record."""
        exit_file = self._node.exit
        if not exit_file.exists() and not self._has_supervisor() and not exit_file.exists():
            killed, survivors = processes.kill_all(lambda: processes.of_job(self._spec.token, self._spec.rank))
            self._write_exit(ExitRecord(stop=StopReason.SUPERVISOR, killed=killed, survivors=survivors))
        return exit_file.exists()

    def close(self) -> None:
        """Close the lifeline, so that what still runs is ended."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def _start(self, environment: dict[str, str]) -> int:
        """Start the supervisor, which leaves this process's tree. Returns the lifeline."""
        read_end, lifeline = os.pipe()  # other children inherit neither end
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

    def _has_supervisor(self) -> bool:
        """Whether the supervisor lives: no other process has the read end of the lifeline."""
        if self._lifeline is None:
            return False
        poll = select.poll()
        poll.register(self._lifeline, 0)  # errors are reported even if nothing is asked for
        return not poll.poll(0)

    def _write_exit(self, record: ExitRecord) -> None:
        now = time.time()
        started = self._node.launch.stat().st_mtime if self._node.launch.exists() else now
        node = processes.own_identity().host
        write_exit(self._spec, replace(record, node=node, started_at=started, ended_at=now), must_end=lambda: True)

"""The other nodes of a job: a Ray actor on each holds that node's part, and lives as long as the job's worker does.

Runs inside the job's worker, which has the first bundle of the placement group. Which of the nodes is the first of the
job, where ranks meet and rank 0 runs, follows from their addresses: torchrun gives out its group ranks in that order,
whatever it is told, and the job's log is the first node's.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pgray.execution.launchers.base import LaunchSettings, NodeRendezvous, free_port
from pgray.execution.node_runner import NodeRunner, part_spec
from pgray.store.exit_record import write_exit
from trainer.records.job import Job, load_job
from trainer.records.layout import RunLayout

_START_S = 300.0
_POLL_S = 0.2


class PeerNodes:
    """The agents of one job. `own_place` is the part that the caller is to hold."""

    def __init__(self, job: Job, shared: LaunchSettings) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self._job, self._shared = job, shared
        self._parts: dict[Any, NodeRendezvous] = {}  # what is held, by the reference that is ready when it is over
        machine, group = shared.machine, ray.util.get_current_placement_group()
        agent = ray.remote(num_cpus=machine.cpus, num_gpus=machine.gpus)(_agent_class())
        self._actors = [
            agent.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle)).remote(str(shared.code))
            for bundle in range(1, machine.nodes)
        ]
        try:
            others = ray.get([actor.run.remote("whereabouts") for actor in self._actors], timeout=_START_S)
        except BaseException:
            self.close()
            raise
        where = [whereabouts(), *others]
        order = sorted(range(machine.nodes), key=lambda bundle: where[bundle][0])
        address, port, _ = where[order[0]]
        places = {
            bundle: NodeRendezvous(rank, where[bundle][0], f"{address}:{port}") for rank, bundle in enumerate(order)
        }
        self.own_place = places.pop(0)
        self._places = places

    def start(self, token: str) -> None:
        """Begin the parts on the other nodes."""
        self._token = token
        job_file = str(RunLayout(self._shared.run_root).job(self._job.job_id).job)
        for bundle, place in self._places.items():
            arguments = (job_file, self._shared.as_text(), asdict(place), token)
            self._parts[self._actors[bundle - 1].run.remote("hold", *arguments)] = place

    def look(self) -> None:
        """Speak for the nodes whose agents died before their part was over."""
        import ray

        done = ray.wait(list(self._parts), num_returns=len(self._parts), timeout=0)[0] if self._parts else []
        for reference in done:
            place = self._parts.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                self._write_lost(place, " ".join(str(error).split()))

    def close(self) -> None:
        """End the agents, and with them what they still hold."""
        import ray

        for actor in self._actors:
            ray.kill(actor)

    def _write_lost(self, place: NodeRendezvous, why: str) -> None:
        spec = part_spec(self._job, self._shared, place, self._token)
        if not Path(spec["exit_file"]).exists():
            record = {"code": None, "stop": "lost", "error": f"node {place.rank} of the job was lost: {why}"}
            write_exit(spec, {**record, "ended_at": time.time()}, is_cut=lambda: True)


def whereabouts() -> tuple[str, int, str]:
    """Address of this node, a free port on it, and Ray's id of it."""
    import ray

    return ray.util.get_node_ip_address(), free_port(), ray.get_runtime_context().get_node_id()


def hold(job_file: str, launch_text: str, place: dict[str, Any], token: str) -> None:
    """Hold one part to its end, inside an agent."""
    holder = NodeRunner(
        load_job(Path(job_file)),
        LaunchSettings.from_text(launch_text),
        NodeRendezvous(**place),
        token,
        whereabouts()[2],
    )
    while not holder.is_over():
        time.sleep(_POLL_S)
    holder.close()


def _agent_class() -> type:
    """A class that Ray sends by value, so that an agent takes this project from the frozen code."""

    class Agent:
        def __init__(self, code: str) -> None:
            import sys

            sys.path.insert(0, code)

        def run(self, name: str, *arguments: Any) -> Any:
            from pgray.execution import multinode as agents

            function: Callable[..., Any] = getattr(agents, name)
            return function(*arguments)

    return Agent

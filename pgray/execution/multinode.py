"""The other nodes of a job: a Ray actor on each, which runs that node and lives as long as the job's worker does.

This module runs inside the job's worker, which has the first bundle of the placement group. The node of rank 0, where
ranks meet and whose log is the job's, is the one with the lowest address: torchrun assigns its group ranks in the order
of addresses, and this cannot be changed.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pgray.execution.launchers.base import LaunchSettings, NodeRendezvous, free_port
from pgray.execution.node_runner import NodeRunner, supervisor_spec
from pgray.store.exit_record import ExitRecord, StopReason, write_exit
from trainer.records.job import Job, load_job
from trainer.records.layout import RunLayout

_START_S = 300.0
_POLL_S = 0.2


class PeerNodes:
    """Runs the nodes of a job other than the caller's own. `own_rendezvous`: for the node that the caller is to run."""

    def __init__(self, job: Job, settings: LaunchSettings) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self._job, self._settings = job, settings
        self._running: dict[Any, NodeRendezvous] = {}  # by the Ray reference that becomes ready when the node is over
        machine, group = settings.machine, ray.util.get_current_placement_group()
        peer = ray.remote(num_cpus=machine.cpus, num_gpus=machine.gpus)(_peer_class())
        self._actors = [
            peer.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle)).remote(str(settings.code))
            for bundle in range(1, machine.nodes)
        ]
        try:
            others = ray.get([actor.run.remote("own_node") for actor in self._actors], timeout=_START_S)
        except BaseException:
            self.close()
            raise
        nodes = sorted(enumerate([own_node(), *others]), key=lambda item: item[1].address)
        first = nodes[0][1]
        self._others = {
            bundle: replace(node, rank=rank, endpoint=first.endpoint, token=first.token)
            for rank, (bundle, node) in enumerate(nodes)
        }
        self.own_rendezvous = self._others.pop(0)

    def start(self) -> None:
        """Start the other nodes."""
        job_file = str(RunLayout(self._settings.run_root).job(self._job.job_id).job)
        for bundle, rendezvous in self._others.items():
            arguments = (job_file, self._settings.to_json(), asdict(rendezvous))
            self._running[self._actors[bundle - 1].run.remote("run_to_end", *arguments)] = rendezvous

    def poll(self) -> None:
        """Write the exit records of nodes whose actor died before they were over."""
        import ray

        done = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)[0] if self._running else []
        for reference in done:
            rendezvous = self._running.pop(reference)
            spec = supervisor_spec(self._job, self._settings, rendezvous)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                if not spec.node.exit.exists():
                    why = f"node {rendezvous.rank} of the job was lost: {' '.join(str(error).split())}"
                    record = ExitRecord(stop=StopReason.LOST, error=why, ended_at=time.time())
                    write_exit(spec, record, must_end=lambda: True)

    def close(self) -> None:
        """End the actors, and with them the nodes that they still run."""
        import ray

        for actor in self._actors:
            ray.kill(actor)


def own_node() -> NodeRendezvous:
    """Return how this node could be reached if it were the first."""
    import ray

    address, ray_node = ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id()
    return NodeRendezvous(address=address, endpoint=f"{address}:{free_port()}", ray_node=ray_node)


def run_to_end(job_file: str, settings: str, rendezvous: dict[str, Any]) -> None:
    """Run one node until it is over, inside an actor. The arguments are plain values, which Ray can send."""
    job = load_job(Path(job_file))
    runner = NodeRunner(job, LaunchSettings.from_json(settings), NodeRendezvous(**rendezvous))
    while not runner.is_over():
        time.sleep(_POLL_S)
    runner.close()


def _peer_class() -> type:
    """Return a class that Ray sends by value, so that the actor imports this project from the code snapshot."""

    class Peer:
        def __init__(self, code: str) -> None:
            import sys

            sys.path.insert(0, code)

        def run(self, name: str, *arguments: Any) -> Any:
            from pgray.execution import multinode

            function: Callable[..., Any] = getattr(multinode, name)
            return function(*arguments)

    return Peer

"""The Ray cluster: connecting to it, and whether a job fits on its nodes."""

import os
import socket
from dataclasses import dataclass
from typing import Any

from trainer.errors import InputError
from trainer.run.config import Machine

# Read by Ray when it is imported or starts; a value that the user has set stays.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_THRESHOLD_S": "30",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a banner at any verbosity
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # `launch.py` decides what a job without GPUs sees
    "RAY_worker_niceness": "0",  # the default 15 would be inherited by the trainer
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # or a worker's exception is printed as well as told
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the driver has its own, for SIGTERM too
}


_OBJECT_STORE_BYTES = 128 * 1024**2  # nothing big travels through Ray here


@dataclass(frozen=True)
class Cluster:
    """The nodes that Ray has: their free and taken CPUs and GPUs together."""

    nodes: tuple[tuple[float, float], ...]  # (cpus, gpus)

    def __str__(self) -> str:
        cpus, gpus = (sum(node[i] for node in self.nodes) for i in (0, 1))
        count = len(self.nodes)
        each = f", at most {max(n[1] for n in self.nodes):.0f} GPUs and {max(n[0] for n in self.nodes):.0f} CPUs on one"
        return f"{gpus:.0f} GPUs and {cpus:.0f} CPUs on {count} node{'s' * (count != 1)}{each if count > 1 else ''}"

    def slots(self, machine: Machine) -> int:
        """How many jobs fit at once, each on as many different nodes as it asks for."""
        fits = self.fits(machine)
        slots = sum(fits) // machine.nodes
        while sum(min(fit, slots) for fit in fits) < slots * machine.nodes:  # a node counts once for each job
            slots -= 1
        return slots

    def fits(self, machine: Machine) -> list[int]:
        """How many jobs' parts each node can hold."""
        return [
            int(min(cpus // machine.cpus, gpus // machine.gpus if machine.gpus else float("inf")))
            for cpus, gpus in self.nodes
        ]


def prepare_ray() -> None:
    """Set what Ray reads from the environment; once Ray is imported it is too late for some of it."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def connect(address: str | None) -> Cluster:
    """Join the Ray cluster at `address` (or RAY_ADDRESS), or one that this process already uses, or start one here."""
    prepare_ray()
    import ray

    if not ray.is_initialized():
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "error"}
        if address == "local":
            # Bound to the loopback: nobody else on the network has business with it.
            options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            options |= {"object_store_memory": _OBJECT_STORE_BYTES}
        else:
            _check_answers(address)
        try:
            ray.init(**options)
        except (ConnectionError, ValueError) as error:
            raise InputError("--address", "address", address, f"no Ray cluster answers there ({error})") from None
    return alive_nodes()


def alive_nodes() -> Cluster:
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Cluster(tuple((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive))


def _check_answers(address: str) -> None:
    """Ray itself tries an address where nobody listens for more than ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # `auto` and the like: for Ray to tell
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        fix = f"nobody answers there ({error.strerror or error}); give the address that ray start printed"
        raise InputError("--address", "address", address, fix) from None


def check_fits(cluster: Cluster, machine: Machine, place: str) -> None:
    """Raises InputError where the nodes can never hold one job: it would wait for ever without a word."""
    if cluster.slots(machine):
        return
    able = sum(fit > 0 for fit in cluster.fits(machine))
    if able:
        fix = f"{able} node{'s' * (able != 1)} of the cluster can hold a part of a job; lower it"
        raise InputError(place, "resources.nodes", machine.nodes, fix)
    most_gpus = max(gpus for _, gpus in cluster.nodes)
    fix = f"the cluster has {cluster}; lower it, or try --preset cpu-smoke"
    if machine.gpus > most_gpus:
        raise InputError(place, "resources.gpus", machine.gpus, fix)
    raise InputError(place, "resources.cpus", machine.cpus, fix)

"""Connect to a Ray cluster, and check whether a job fits on its nodes."""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pgray.execution.machine_share import Share
from trainer.errors import InputError
from trainer.records.text import count_of
from trainer.run.config import Machine

# Ray reads these when it is imported or starts. Values set by the user are kept.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_THRESHOLD_S": "30",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a banner at any verbosity
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the launcher hides the GPUs from a job that asks for none
    "RAY_worker_niceness": "0",  # the trainer would inherit the default of 15
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # the driver reports exceptions of workers
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the driver has its own handlers, for SIGTERM too
}
TOKEN_FIX = (
    "the cluster asks for a token, and none or another one was found here; "
    "copy ~/.ray/auth_token from its head node, or set RAY_AUTH_TOKEN"
)
_OBJECT_STORE_BYTES = 128 * 1024**2  # nothing big is sent through Ray here


@dataclass(frozen=True)
class Cluster:
    """The CPUs and GPUs of each node of a Ray cluster, whether free or in use."""

    nodes: tuple[tuple[float, float], ...]  # (cpus, gpus)

    def __str__(self) -> str:
        cpus, gpus = (sum(node[i] for node in self.nodes) for i in (0, 1))
        most_cpus, most_gpus = (max((node[i] for node in self.nodes), default=0) for i in (0, 1))
        each = f", at most {count_of(most_gpus, 'GPU')} and {count_of(most_cpus, 'CPU')} on one"
        total = f"{count_of(gpus, 'GPU')} and {count_of(cpus, 'CPU')} on {count_of(len(self.nodes), 'node')}"
        return total + (each if len(self.nodes) > 1 else "")

    def slots(self, machine: Machine) -> int:
        """Return how many jobs fit at once, each on as many different nodes as it asks for."""
        fits = self.jobs_per_node(machine)
        slots = sum(fits) // machine.nodes
        while sum(min(fit, slots) for fit in fits) < slots * machine.nodes:  # each job uses a node only once
            slots -= 1
        return slots

    def jobs_per_node(self, machine: Machine) -> list[int]:
        """Return how many jobs fit on each node at once."""
        return [
            int(min(cpus // machine.cpus, gpus // machine.gpus if machine.gpus else float("inf")))
            for cpus, gpus in self.nodes
        ]


def prepare_ray() -> None:
    """Set the environment variables that Ray reads. Call it before Ray is imported, which reads some of them."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def start_here(share: Share, scratch: Path) -> Cluster:
    """Start a Ray on this machine that uses a share of it. `scratch`: the folder of its temporary files."""
    import ray
    from ray._private.accelerators import get_accelerator_manager_for_resource

    if share.gpus:
        os.environ[get_accelerator_manager_for_resource("GPU").get_visible_accelerator_ids_env_var()] = ",".join(
            share.gpus
        )
    ray.init(
        "local",
        num_cpus=len(share.cpus),
        num_gpus=len(share.gpus),
        log_to_driver=False,
        logging_level="error",
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",  # the loopback device, so that it cannot be reached from the network
        _temp_dir=str(scratch),
    )
    return alive_nodes()


def join(address: str) -> Cluster:
    """Connect to a Ray cluster.

    Raises:
        InputError: no cluster answers at the address.
    """
    check_answers(address)
    import ray

    if "RAY_AUTH_MODE" not in os.environ and _asks_for_token(address):
        if not has_token():
            raise InputError("--address", "address", address, TOKEN_FIX)
        os.environ["RAY_AUTH_MODE"] = "token"  # as `ray start` does on a node that has one
        ray._raylet.Config.initialize("")  # Ray has read the variable when it was imported
    try:
        ray.init(address, log_to_driver=False, logging_level="error")
    except ray.exceptions.AuthenticationError:
        raise InputError("--address", "address", address, TOKEN_FIX) from None
    except (ConnectionError, ValueError) as error:
        raise InputError("--address", "address", address, f"no Ray cluster answers there ({error})") from None
    return alive_nodes()


def _asks_for_token(address: str) -> bool:
    """Whether a cluster refuses a request without a token. One that asks for none breaks off jobs that bring one."""
    import ray

    if not address.rpartition(":")[2].isdigit() or "://" in address:
        return has_token()  # an address that only Ray can resolve
    with _silent_stderr():
        try:
            ray._raylet.GcsClient(address=address)
        except ray.exceptions.AuthenticationError:
            return True
        except Exception as error:
            raise InputError("--address", "address", address, f"no Ray cluster answers there ({error})") from None
    return False


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what C++ code prints."""
    before = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def has_token() -> bool:
    """Whether this user has a token of Ray's."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()


def alive_nodes() -> Cluster:
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Cluster(tuple((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive))


def check_answers(address: str) -> None:
    """Check that something listens at an address. Ray itself would retry for more than ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # `auto` and the like, which Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        fix = f"no answer ({error.strerror or error}); give the address that ray start printed"
        raise InputError("--address", "address", address, fix) from None


def check_fits(cluster: Cluster, machine: Machine, origin: str) -> None:
    """Raise InputError if no job can ever fit on the nodes: it would wait forever. `origin`: the sweep file."""
    if cluster.slots(machine):
        return
    able = sum(fit > 0 for fit in cluster.jobs_per_node(machine))
    if able:
        fix = f"only {count_of(able, 'node')} of the cluster can run such a job; lower it"
        raise InputError(origin, "resources.nodes", machine.nodes, fix)
    fix = f"the cluster has {cluster}; lower it, or try --preset cpu-smoke"
    if machine.gpus > max(gpus for _, gpus in cluster.nodes):
        raise InputError(origin, "resources.gpus", machine.gpus, fix)
    raise InputError(origin, "resources.cpus", machine.cpus, fix)

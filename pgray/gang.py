"""Ray Tune as gang executor: runs a list of job ids, each with all its GPUs on one node, and says what happened.

Tune decides nothing here: which jobs exist, whether a job is tried again and what its end means are the driver's. One
placement-group bundle per job: with the GPUs in a bundle of their own, Ray would leave the job without any (measured,
orchestration.md 3.5). No `Tuner.restore`: it ignores what was added to a sweep and unpickles its folder.
"""

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pgray.job import Launch, run_job
from trainer.config import Machine
from trainer.errors import InputError
from trainer.job import Job

# Read by Ray when it is imported or starts; a value that the user has set stays.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_THRESHOLD_S": "30",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a banner at any verbosity
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # `launch.py` decides what a job without GPUs sees
    "RAY_worker_niceness": "0",  # the default 15 would be inherited by the trainer
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the driver has its own, for SIGTERM too
}
_OBJECT_STORE_BYTES = 128 * 1024**2  # nothing big travels through Ray here


class Listener(Protocol):
    """Hears about jobs, in the driver's own thread; `tick` comes several times a second and says whether to go on."""

    def started(self, job_id: str) -> None: ...
    def progressed(self, job_id: str, metrics: Mapping[str, Any]) -> None: ...
    def ended(self, job_id: str, worker_error: str | None) -> None: ...
    def tick(self) -> bool: ...


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
        """How many jobs fit at once."""
        return sum(
            int(min(cpus // machine.cpus, gpus // machine.gpus if machine.gpus else float("inf")))
            for cpus, gpus in self.nodes
        )


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
    """Raises InputError where no node can ever hold one job: it would wait for ever without a word."""
    if cluster.slots(machine):
        return
    most_gpus = max(gpus for _, gpus in cluster.nodes)
    fix = f"the cluster has {cluster}; lower it, or try --preset cpu-smoke"
    if machine.gpus > most_gpus:
        raise InputError(place, "resources.gpus", machine.gpus, fix)
    raise InputError(place, "resources.cpus", machine.cpus, fix)


def run_jobs(job_ids: Sequence[str], jobs: Mapping[str, Job], shared: Launch, slots: int, listener: Listener) -> None:
    """Run every job once, in order, as many at a time as fit. Returns when all have ended or the listener stops it."""
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are the driver's to tell
    scratch = Path(tempfile.mkdtemp(prefix="pgray-tune-"))
    machine = shared.machine
    bundle = {"CPU": float(machine.cpus)} | ({"GPU": float(machine.gpus)} if machine.gpus else {})
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_job, shared=shared, jobs=dict(jobs)),
            tune.PlacementGroupFactory([bundle], strategy="STRICT_PACK"),
        ),
        param_space={"job_id": tune.grid_search(list(job_ids))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=slots,
            reuse_actors=True,  # a new worker costs 2 to 3 s
            trial_dirname_creator=lambda trial: str(trial.config["job_id"]),
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            verbose=0,
            stop=_stopper(listener),
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[_callback(listener)],
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Kept:
    """Holds what must not be pickled: Ray writes the whole experiment down for `Tuner.restore`, which is not used here."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


def _stopper(listener: Listener) -> Any:
    from ray import tune

    class Stopper(tune.Stopper):  # type: ignore[misc]
        def __init__(self, kept: _Kept) -> None:
            self.kept = kept

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return not self.kept.listener.tick()

    return Stopper(_Kept(listener))


def _callback(listener: Listener) -> Any:
    from ray.tune.progress_reporter import TrialProgressCallback

    # Of this class, so that Tune does not add one that prints.
    class Callback(TrialProgressCallback):  # type: ignore[misc]
        def __init__(self, kept: _Kept) -> None:
            super().__init__()
            self.kept = kept

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.kept.listener.started(trial.config["job_id"])

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            self.kept.listener.progressed(trial.config["job_id"], result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.kept.listener.ended(trial.config["job_id"], None)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.kept.listener.ended(trial.config["job_id"], _error_text(trial.error_file))

    return Callback(_Kept(listener))


def _error_text(path: str | None) -> str | None:
    """What Ray wrote about the failure of a worker, without the headline of its error file."""
    try:
        return " ".join(Path(path).read_text(errors="replace").splitlines()[1:]) if path else None
    except OSError:
        return None

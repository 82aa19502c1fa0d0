"""Ray Tune as gang executor: starts the jobs that it is handed, each with all its GPUs at once, and says what happened.

Tune decides nothing here: a Searcher passes on what the driver's queue hands out. Whether a job is tried again and what
its end means are the driver's too. One placement-group bundle per node of a job: with the GPUs in a bundle of their own,
Ray would leave the job without any (measured, orchestration.md 3.5). No `Tuner.restore`: it ignores what was added to a
sweep and unpickles its folder.
"""

import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pgray.launch import Launch
from trainer.config import Machine
from trainer.errors import InputError

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
_MOST_STARTING = 16  # workers that Ray may start at once
_SLOTS_S = 5.0
_OBJECT_STORE_BYTES = 128 * 1024**2  # nothing big travels through Ray here


class Conductor(Protocol):
    """Hands out jobs and hears about them, in the driver's thread; `tick` comes several times a second: whether to go on."""

    def next_job(self, slots: int) -> str | None: ...
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


def run_jobs(shared: Launch, conductor: Conductor) -> None:
    """Run the jobs that the conductor hands out, as many at a time as fit, until it says that there are no more."""
    from ray import tune

    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_MOST_STARTING)

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are the driver's to tell
    scratch = Path(tempfile.mkdtemp(prefix="pgray-tune-"))
    machine = shared.machine
    bundle = {"CPU": float(machine.cpus)} | ({"GPU": float(machine.gpus)} if machine.gpus else {})
    strategy = "STRICT_PACK" if machine.nodes == 1 else "STRICT_SPREAD"
    tuner = tune.Tuner(
        tune.with_resources(
            worker_function(str(shared.code), shared.as_text()),
            tune.PlacementGroupFactory([bundle] * machine.nodes, strategy=strategy),
        ),
        tune_config=tune.TuneConfig(
            search_alg=_job_source(conductor, machine),
            num_samples=-1,  # until the source has no more
            reuse_actors=True,  # a new worker costs 2 to 3 s
            trial_dirname_creator=lambda trial: str(trial.config["job_id"]),
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            verbose=0,
            stop=_stopper(conductor),
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[_callback(conductor)],
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def worker_function(code: str, launch_text: str) -> Callable[[dict[str, Any]], None]:
    """A function that Ray sends by value: a worker takes this project from the frozen code, and need not have it."""

    def run(config: dict[str, Any]) -> None:
        import sys
        from pathlib import Path

        if not Path(code).is_dir():
            raise FileNotFoundError(f"{code} is not on this node: --runs must be a folder that every node sees")
        if sys.path[0] != code:
            sys.path.insert(0, code)
        from pgray.job import run_job

        run_job(config["job_id"], launch_text)

    return run


class _Kept:
    """Holds what must not be pickled: Ray writes the whole experiment down for `Tuner.restore`, which is not used here."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


def _job_source(conductor: Conductor, machine: Machine) -> Any:
    from ray.tune.search import Searcher

    class JobSource(Searcher):  # type: ignore[misc]
        def __init__(self, kept: _Kept) -> None:
            super().__init__()
            self.kept = kept
            self.slots, self.slots_known_until = 0, 0.0

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
            if not self.kept.conductor.tick():  # Tune does not ask the stopper while it waits for a first trial
                return str(Searcher.FINISHED)
            if time.monotonic() >= self.slots_known_until:  # nodes come and go
                self.slots, self.slots_known_until = alive_nodes().slots(machine), time.monotonic() + _SLOTS_S
            job_id = self.kept.conductor.next_job(max(1, self.slots))
            return None if job_id is None else {"job_id": job_id}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            pass

        def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
            pass  # the ledger remembers

    return JobSource(_Kept(conductor))


def _stopper(conductor: Conductor) -> Any:
    from ray import tune

    class Stopper(tune.Stopper):  # type: ignore[misc]
        def __init__(self, kept: _Kept) -> None:
            self.kept = kept

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return not self.kept.conductor.tick()

    return Stopper(_Kept(conductor))


def _callback(conductor: Conductor) -> Any:
    from ray.tune.progress_reporter import TrialProgressCallback

    # Of this class, so that Tune does not add one that prints.
    class Callback(TrialProgressCallback):  # type: ignore[misc]
        def __init__(self, kept: _Kept) -> None:
            super().__init__()
            self.kept = kept

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.kept.conductor.started(trial.config["job_id"])

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            self.kept.conductor.progressed(trial.config["job_id"], result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.kept.conductor.ended(trial.config["job_id"], None)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.kept.conductor.ended(trial.config["job_id"], _error_text(trial.error_file))

    return Callback(_Kept(conductor))


def _error_text(path: str | None) -> str | None:
    """What Ray wrote about the failure of a worker, without the headline of its error file."""
    try:
        return " ".join(Path(path).read_text(errors="replace").splitlines()[1:]) if path else None
    except OSError:
        return None

"""Ray Tune as gang executor: starts the jobs that it is handed, each with all its GPUs at once, and says what happened.

Tune decides nothing here: a Searcher passes on what the driver's queue hands out. Whether a job is tried again and what
its end means are the driver's too. One placement-group bundle per node of a job: with the GPUs in a bundle of their own,
Ray would leave the job without any (measured, orchestration.md 3.5). No `Tuner.restore`: it ignores what was added to a
sweep and unpickles its folder.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pgray.execution.cluster import alive_nodes
from pgray.execution.job_events import JobEvents, JobProgress
from pgray.execution.launchers.base import LaunchSettings
from trainer.run.config import Machine

_MOST_STARTING = 16  # workers that Ray may start at once
_SLOTS_S = 5.0


def run_jobs(shared: LaunchSettings, events: JobEvents) -> None:
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
            search_alg=_job_source(events, machine),
            num_samples=-1,  # until the source has no more
            reuse_actors=True,  # a new worker costs 2 to 3 s
            trial_dirname_creator=lambda trial: str(trial.config["job_id"]),
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            verbose=0,
            stop=_stopper(events),
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[_callback(events)],
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
        from pgray.execution.worker import run_job

        run_job(config["job_id"], launch_text)

    return run


class _Unpicklable:
    """Holds what must not be pickled: Ray writes the whole experiment down for `Tuner.restore`, which is not used here."""

    def __init__(self, events: JobEvents) -> None:
        self.events = events

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


def _job_source(events: JobEvents, machine: Machine) -> Any:
    from ray.tune.search import Searcher

    class JobSource(Searcher):  # type: ignore[misc]
        def __init__(self, holder: _Unpicklable) -> None:
            super().__init__()
            self.holder = holder
            self.slots, self.slots_known_until = 0, 0.0

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
            if not self.holder.events.poll():  # Tune does not ask the stopper while it waits for a first trial
                return str(Searcher.FINISHED)
            if time.monotonic() >= self.slots_known_until:  # nodes come and go
                self.slots, self.slots_known_until = alive_nodes().slots(machine), time.monotonic() + _SLOTS_S
            job_id = self.holder.events.next_job(max(1, self.slots))
            return None if job_id is None else {"job_id": job_id}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            pass

        def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
            pass  # the ledger remembers

    return JobSource(_Unpicklable(events))


def _stopper(events: JobEvents) -> Any:
    from ray import tune

    class Stopper(tune.Stopper):  # type: ignore[misc]
        def __init__(self, holder: _Unpicklable) -> None:
            self.holder = holder

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return not self.holder.events.poll()

    return Stopper(_Unpicklable(events))


def _callback(events: JobEvents) -> Any:
    from ray.tune.progress_reporter import TrialProgressCallback

    # Of this class, so that Tune does not add one that prints.
    class Callback(TrialProgressCallback):  # type: ignore[misc]
        def __init__(self, holder: _Unpicklable) -> None:
            super().__init__()
            self.holder = holder

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.holder.events.on_started(trial.config["job_id"])

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if progress := JobProgress.from_report(result):  # Tune adds a last result of its own
                self.holder.events.on_progress(trial.config["job_id"], progress)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.holder.events.on_ended(trial.config["job_id"], None)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.holder.events.on_ended(trial.config["job_id"], _error_text(trial.error_file))

    return Callback(_Unpicklable(events))


def _error_text(path: str | None) -> str | None:
    """What Ray wrote about the failure of a worker, without the headline of its error file."""
    try:
        return " ".join(Path(path).read_text(errors="replace").splitlines()[1:]) if path else None
    except OSError:
        return None

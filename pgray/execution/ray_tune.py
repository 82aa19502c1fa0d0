"""Run jobs with Ray Tune as gang executor: each job starts when all its GPUs are free at once.

Tune decides nothing here. Its Searcher passes on the jobs that the scheduler hands out; the scheduler also decides what
the end of a job means and whether it is tried again. The placement group has one bundle per node of a job, which the worker
shares: with the GPUs in a bundle apart from the worker's, Ray gives the job none (measured). `Tuner.restore` is not used:
it ignores what was added to a sweep, and it unpickles its folder.
"""

import contextlib
import logging
import os
import re
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
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EXCEPTION = re.compile(r"[\w.]*(?:Error|Exception|Exit|Interrupt)\b")


def run_jobs(settings: LaunchSettings, events: JobEvents, scratch: Path) -> None:
    """Run the jobs that `events` hands out, as many at a time as fit, until its `poll` returns False.

    Args:
        scratch: a folder for Tune's files; nothing in it is needed later.
    """
    from ray import tune

    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_MOST_STARTING)

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the driver reports failures
    machine = settings.machine
    bundle = {"CPU": float(machine.cpus)} | ({"GPU": float(machine.gpus)} if machine.gpus else {})
    strategy = "STRICT_PACK" if machine.nodes == 1 else "STRICT_SPREAD"
    source, stopper, callback = _tune_hooks(events, machine)
    tuner = tune.Tuner(
        tune.with_resources(
            worker_function(str(settings.code), settings.to_json()),
            tune.PlacementGroupFactory([bundle] * machine.nodes, strategy=strategy),
        ),
        tune_config=tune.TuneConfig(
            search_alg=source,
            num_samples=-1,  # unlimited
            reuse_actors=True,  # a new worker takes 2 to 3 s to start
            trial_dirname_creator=lambda trial: str(trial.config["job_id"]),
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            verbose=0,
            stop=stopper,
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[callback],
        ),
    )
    tuner.fit()


def worker_function(code: str, settings_text: str) -> Callable[[dict[str, Any]], None]:
    """Return a function that Ray sends by value: the worker imports this project from the code snapshot."""

    def run(config: dict[str, Any]) -> None:
        import sys
        from pathlib import Path

        if not Path(code).is_dir():
            raise FileNotFoundError(f"{code} is not on this node: --runs must be a folder that every node sees")
        if sys.path[0] != code:
            sys.path.insert(0, code)
        from pgray.execution.worker import run_job

        run_job(config["job_id"], settings_text)

    return run


def error_message(report: str) -> str:
    """Return the last exception's message of an error that Ray reports, in one line without the traceback and colours."""
    lines = _COLOUR.sub("", report).splitlines()
    starts = [i for i, line in enumerate(lines) if _EXCEPTION.match(line)]
    return " ".join(" ".join(lines[starts[-1] if starts else 0 :]).split())


class _Unpicklable:
    """Keeps `events` from being pickled: Ray saves the whole experiment for `Tuner.restore`, which is not used here."""

    def __init__(self, events: JobEvents) -> None:
        self.events = events

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


def _tune_hooks(events: JobEvents, machine: Machine) -> tuple[Any, Any, Any]:
    """Return the Searcher, the Stopper and the Callback through which Tune calls `events`."""
    from ray import tune
    from ray.tune.progress_reporter import TrialProgressCallback
    from ray.tune.search import Searcher

    unpicklable = _Unpicklable(events)

    class JobSource(Searcher):  # type: ignore[misc]
        slots, slots_known_until = 0, 0.0

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
            if not unpicklable.events.poll():  # Tune does not call the stopper before the first trial
                return str(Searcher.FINISHED)
            if time.monotonic() >= self.slots_known_until:  # nodes join and leave
                self.slots, self.slots_known_until = alive_nodes().slots(machine), time.monotonic() + _SLOTS_S
            job_id = unpicklable.events.next_job(max(1, self.slots))
            return None if job_id is None else {"job_id": job_id}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            pass

        def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
            pass  # the ledger has everything

    class Stopper(tune.Stopper):  # type: ignore[misc]
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return not unpicklable.events.poll()

    class Callback(TrialProgressCallback):  # type: ignore[misc]  # or Tune adds its own, which prints
        def on_trial_start(self, *, trial: Any, **info: Any) -> None:
            unpicklable.events.on_started(trial.config["job_id"])

        def on_trial_result(self, *, trial: Any, result: dict[str, Any], **info: Any) -> None:
            if "progress" in result:  # Tune adds a last result without it
                unpicklable.events.on_progress(trial.config["job_id"], JobProgress(**result["progress"]))

        def on_trial_complete(self, *, trial: Any, **info: Any) -> None:
            unpicklable.events.on_ended(trial.config["job_id"], None)

        def on_trial_error(self, *, trial: Any, **info: Any) -> None:
            text = None
            with contextlib.suppress(OSError, TypeError):  # Ray could not write the file
                text = error_message(Path(trial.error_file).read_text(errors="replace"))
            unpicklable.events.on_ended(trial.config["job_id"], text)

    return JobSource(), Stopper(), Callback()

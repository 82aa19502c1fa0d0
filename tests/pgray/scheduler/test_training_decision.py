"""The plan, the queue and the trainer agree on whether a job must train."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgray.execution.launchers.base import LaunchSettings
from pgray.planning.decision import decide
from pgray.planning.forecast import forecast
from pgray.planning.planner import make_plan
from pgray.scheduler.ledger_writer import LedgerWriter
from pgray.scheduler.queue import JobQueue
from pgray.spec.sweep import Sweep
from tests.pgray.finished_run import training_record
from trainer import pipeline
from trainer.records.files import write_bytes, write_json
from trainer.records.fingerprint import LAST_WEIGHTS, average_key
from trainer.records.job import Job
from trainer.records.layout import RunLayout
from trainer.run.dist import DistContext

AVERAGES = {
    "int8": "{average.kind: none}",
    "ema": "{average.kind: ema, average.decay: 0.9}",
    "slow-ema": "{average.kind: ema, average.decay: 0.99}",
    "swa": "{average.kind: swa, average.every: 2}",
    "lawa": "{average.kind: lawa, average.every: 1, average.count: 2}",
    "sqwa": "{average.kind: sqwa, average.every: 2}",
}
NAMES = st.sets(st.sampled_from(sorted(AVERAGES)), min_size=1)


class _TrainsError(Exception):
    pass


class _ExportsError(Exception):
    pass


def _raise(error: type[Exception]) -> Callable[..., Any]:
    def stop(*_: Any) -> None:
        raise error

    return stop


def _trainer_trains(job: Job, root: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the trainer's own entry up to its first training step or its first export."""
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "train", _raise(_TrainsError))
        patch.setattr(pipeline, "export", _raise(_ExportsError))
        try:
            pipeline.run_job(job, root, DistContext(0, 1, torch.device("cpu")))
        except _TrainsError:
            return True
        except _ExportsError:
            return False
    raise AssertionError("the trainer neither trained nor exported")


@given(finished=NAMES, wanted=NAMES, lost=st.sets(st.sampled_from(sorted(AVERAGES)), max_size=2))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plan_queue_and_trainer_agree(
    write_sweep: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    finished: set[str],
    wanted: set[str],
    lost: set[str],
) -> None:
    """`finished`: averages that an earlier run kept; `wanted`: what the arms export; `lost`: weights removed since."""
    arms = "".join(f"  {name}: {AVERAGES[name]}\n" for name in sorted(wanted | {"int8"}))
    every = Sweep.from_yaml(write_sweep(arms="".join(f"  {n}: {c}\n" for n, c in AVERAGES.items()), seeds="[1]"))
    keys = {trial.arm: average_key(trial.config) for trial in make_plan(every).trials}
    plan = make_plan(Sweep.from_yaml(write_sweep(arms=arms, seeds="[1]")))
    with tempfile.TemporaryDirectory() as folder:
        layout = RunLayout(Path(folder) / "run")
        trained = layout.trained(plan.trials[0].train_fingerprint)
        kept = {LAST_WEIGHTS, *(keys[name] for name in finished)}
        record = training_record(plan.trials[0].train_fingerprint, kept)
        write_json(trained.record, record.model_dump(mode="json"))
        on_disk = kept - {keys[name] for name in lost}
        for key in on_disk:
            write_bytes(trained.weights(key), b"weights")

        decision = decide(plan, layout)
        (planned,) = forecast(decision, layout).jobs
        launch = LaunchSettings(layout.root, plan.sweep.machine)
        queue = JobQueue(decision, layout, LedgerWriter(layout, decision), launch)
        queue.start()
        job = queue.next()
        assert job is not None

        must_train = not {LAST_WEIGHTS, *(keys[name] for name in wanted | {"int8"})} <= on_disk
        assert planned.trains is must_train
        assert (job.job_id in queue.training) is must_train
        assert _trainer_trains(job, layout.root, monkeypatch) is must_train


def test_an_arm_with_another_average_trains(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    """The bug that this rule replaced: `pgray plan` said that nothing trains, and the run trained."""
    first = make_plan(Sweep.from_yaml(write_sweep(arms=f"  int8: {AVERAGES['int8']}\n", seeds="[1]")))
    layout = RunLayout(tmp_path / "run")
    trained = layout.trained(first.trials[0].train_fingerprint)
    record = training_record(first.trials[0].train_fingerprint, {LAST_WEIGHTS})
    write_json(trained.record, record.model_dump(mode="json"))
    write_bytes(trained.weights(LAST_WEIGHTS), b"weights")
    (same,) = forecast(decide(first, layout), layout).jobs
    assert not same.trains
    added = make_plan(Sweep.from_yaml(write_sweep(arms=f"  int8: {AVERAGES['ema']}\n", seeds="[1]")))
    (planned,) = forecast(decide(added, layout), layout).jobs
    assert planned.trains

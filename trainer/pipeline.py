"""What a job does: train once, then for every trial average -> quantize -> pack -> unpack -> evaluate -> record.

Read this file first; each step is in the module that it imports.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from trainer.config import Config
from trainer.data.stream import TokenStream
from trainer.errors import InputError, PgrayError
from trainer.evaluation.harness import EvalHarness
from trainer.loop import TrainingRun
from trainer.model.shapes import check_patterns
from trainer.quant.artifact import equal_weights, pack, read_artifact, unpack
from trainer.quant.export import assemble, store_weights
from trainer.records.events import EventLog
from trainer.records.files import write_bytes, write_json, write_sealed
from trainer.records.fingerprint import LAST_WEIGHTS, average_key
from trainer.records.job import Job, TrialSpec
from trainer.records.layout import RunLayout, TrainedLayout, TrialLayout
from trainer.records.results import JobFailure, TrainingRecord, TrialResult
from trainer.records.trained import find_training, usable_result
from trainer.run.bundle import code_sha
from trainer.run.checkpoint import Checkpoint, WeightsFile, load_weights, save_weights
from trainer.run.describe import describe_training, describe_trial
from trainer.run.dist import DistContext
from trainer.run.hardware import node_name, probe_tflops


def run_job(job: Job, out: Path, dist: DistContext) -> list[TrialResult]:
    """Train, unless usable trained weights exist, and export every trial that has no result yet.

    Args:
        job: one training run and its exports.
        out: the run folder; `trainer/records/layout.py` lists its files.
    Returns:
        The results of the job's trials, on every rank. A trial whose export failed is missing and has a failure.json.
    Raises:
        InputError: the job was planned for another version of this code.
    """
    if job.code_sha not in (None, code_sha()):
        fix = f"this trainer is {code_sha()}, from {Path(__file__).parent}: another one comes before it on sys.path"
        raise InputError(job.job_id, "code_sha", job.code_sha, fix)
    layout = RunLayout(out)
    for trial in job.trials:
        check_patterns(trial.config, trial.trial_id)
    harness = EvalHarness(job.config, dist)
    folder = layout.trained(job.train_fingerprint)
    record, damage = find_training(folder, (trial.config for trial in job.trials))
    training_share_s = 0.0
    if not dist.all_true(record is not None) or record is None:
        if damage and dist.is_main:
            EventLog(folder.events).write("training_again", reason=damage)
        record = train(job, folder, harness)
        training_share_s = record.wall_s / len(job.trials)
    results = [export(trial, record, layout, job, harness, training_share_s) for trial in job.trials]
    return [result for result in results if result is not None]


def train(job: Job, folder: TrainedLayout, harness: EvalHarness) -> TrainingRecord:
    """Train and save the float weights: of the last step, and every average that a trial of the job exports."""
    started, config, dist = time.perf_counter(), harness.config, harness.dist
    events = EventLog(folder.events if dist.is_main else None)
    if dist.is_main:  # averages of an earlier training run must not lie next to this one's record
        for stale in (folder.record, *folder.root.glob("*.safetensors")):
            stale.unlink(missing_ok=True)
    node_tflops = dist.minimum(probe_tflops(dist.device))
    events.write(
        "training", train_fingerprint=job.train_fingerprint, seed=config.seed, world_size=dist.world_size,
        node=node_name(), node_tflops=node_tflops,
    )  # fmt: skip
    without_average = config.model_copy(update={"average": config.average.model_copy(update={"kind": "none"})})
    wanted = {**job.averages, LAST_WEIGHTS: without_average}
    stream = TokenStream(harness.folder, config.train, dist, config.model.vocab_size)
    run = TrainingRun(
        config, harness.model, harness.forward, wanted, stream, dist, events, harness.validation,
        Checkpoint(folder.checkpoint, dist),
    )  # fmt: skip
    try:
        trained = run.run()
    finally:
        stream.close()
    sha256 = {}
    if dist.is_main:
        sha256 = {key: save_weights(folder, key, weights) for key, weights in trained.weights.items()}
    record = describe_training(job, harness, trained, node_tflops, time.perf_counter() - started, sha256)
    if dist.is_main:
        write_sealed(folder.record, record.model_dump(mode="json"))
    run.checkpoint.remove()
    events.write("trained", steps=trained.steps, train_s=trained.train_s, step_ms=record.step_ms)
    dist.barrier()
    return record


def export(
    trial: TrialSpec, record: TrainingRecord, layout: RunLayout, job: Job, harness: EvalHarness, training_share_s: float
) -> TrialResult | None:
    """Pack the averaged weights, evaluate what the packed bytes unpack to, and write the result.

    Args:
        training_share_s: the trial's share of the wall time of a training run in this job.
    Returns:
        None if the export failed; the trial's failure.json then holds the reason.
    """
    started, config, dist = time.perf_counter(), trial.config, harness.dist
    folder, trained = layout.trial(trial.trial_id), layout.trained(record.train_fingerprint)
    before = usable_result(folder)
    if dist.all_true(before is not None):
        return before
    harness.forward.is_looped = config.recurrence.kind != "partial" or record.recurrence_on_step is not None
    events = EventLog(folder.events if dist.is_main else None)
    sha256 = {average.key: average.sha256 for average in record.averages}
    average, last = (WeightsFile(trained.weights(key), sha256[key]) for key in (average_key(config), LAST_WEIGHTS))

    failure, export_s = None, 0.0
    if dist.is_main:
        write_bytes(folder.events, trained.events.read_bytes())  # a trial's event log includes the training run
        float_weights = load_weights(average)
        export_started = time.perf_counter()
        failure = quantize_and_pack(float_weights, config, folder.artifact, dist.device)
        export_s = time.perf_counter() - export_started
    if not dist.all_true(failure is None):
        _write_failure(failure, folder)
        return None
    packed = folder.artifact.read_bytes()
    artifact, model_bytes = unpack(packed, folder.artifact), len(packed)
    events.write("packed", trial_id=trial.trial_id, model_bytes=model_bytes, export_s=export_s)

    evaluation = harness.evaluate(artifact.weights, average, last, config.eval)
    if not evaluation.is_finite:
        reason = f"evaluation gave {', '.join(f'{score.nats:.6g}' for score in evaluation.scores)} nats"
        _write_failure(JobFailure(kind="diverged", reason=reason) if dist.is_main else None, folder)
        return None
    wall_s = time.perf_counter() - started + training_share_s
    result = describe_trial(trial, record, job, evaluation, artifact, packed, export_s, wall_s)
    if dist.is_main:
        write_json(folder.config, config.model_dump(mode="json"))
        events.write(
            "finished", trial_id=trial.trial_id, float_bpb=result.float_bpb, post_quant_bpb=result.post_quant_bpb,
            quant_gap=result.quant_gap, sliding_bpb=result.sliding_bpb, artifact_bytes=result.artifact_bytes,
        )  # fmt: skip
        write_sealed(folder.result, result.model_dump(mode="json"))
    dist.barrier()
    return result


def quantize_and_pack(
    weights: Mapping[str, Tensor], config: Config, path: Path, device: torch.device
) -> JobFailure | None:
    """Write the artifact and read it back: it must unpack to the packed weights, bit for bit. Return what went wrong."""
    on_device = {name: w.to(device) for name, w in weights.items()}
    try:
        stored = store_weights(on_device, config.quant)
        write_bytes(path, pack(stored, config))
        if not equal_weights(read_artifact(path).weights, assemble(stored)):
            return JobFailure(kind="infra", reason=f"{path}: unpacks to other weights than were packed")
    except (PgrayError, ValueError) as error:
        return JobFailure(kind=getattr(error, "kind", "user_error"), reason=str(error))
    return None


def _write_failure(failure: JobFailure | None, folder: TrialLayout) -> None:
    """Write why this export has no result. The job's other trials are still exported."""
    if failure:
        write_json(folder.failure, failure.model_dump(mode="json"))

"""The story of a job: train once, then for every trial average -> quantize -> pack -> unpack -> evaluate -> record.

Read this file first. What a step means is in the module that it names.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from trainer.config import Config
from trainer.data.shards import data_sha, find_tokenizer, tokenizer_sha
from trainer.data.stream import TokenStream
from trainer.errors import InputError, PgrayError
from trainer.evaluation.config import EvalConfig
from trainer.evaluation.diagnostics import antilayer, doubts
from trainer.evaluation.scoring import CompiledModel, Score, Validation, make_forward
from trainer.evaluation.ttt import TestTimeTraining
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.loop import Trained, TrainingRun
from trainer.model.model import Model, build_model, num_params
from trainer.model.shapes import check_patterns
from trainer.quant.artifact import byte_ledger, equal_weights, pack, read_artifact
from trainer.quant.export import assemble, store_weights
from trainer.records.events import EventLog
from trainer.records.files import write_bytes, write_json
from trainer.records.fingerprint import LAST_WEIGHTS, average_key
from trainer.records.job import Job, TrialSpec
from trainer.records.layout import RunLayout, TrainedLayout, TrialLayout
from trainer.records.results import JobFailure, TrainingRecord, TrialResult
from trainer.records.trained import usable_training
from trainer.run.bundle import code_bytes, code_sha
from trainer.run.checkpoint import Checkpoint, load_weights, save_weights
from trainer.run.dist import DistContext
from trainer.run.hardware import describe_hardware, node_name, peak_memory_mib, probe_tflops


def run_job(job: Job, out: Path, ranks: DistContext) -> list[TrialResult]:
    """Train, unless trained weights are there, and export every trial that has no result yet.

    Args:
        job: one training run and its exports.
        out: the run folder; see `layout.py` for what appears where.
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
    bench = EvalHarness.build(job, ranks)
    record = usable_training(layout.trained(job.train_fingerprint), (trial.config for trial in job.trials))
    is_new = not ranks.all_true(record is not None) or record is None
    if record is None or is_new:
        record = train(job, layout.trained(job.train_fingerprint), bench)
    training_share_s = record.wall_s / len(job.trials) if is_new else 0.0
    results = [export(trial, record, layout, job, bench, training_share_s) for trial in job.trials]
    return [result for result in results if result is not None]


@dataclass
class EvalHarness:
    """What training and evaluation share: one model (compiled once), the validation split, and scores already taken."""

    config: Config
    ranks: DistContext
    model: Model
    forward: CompiledModel
    folder: Path
    validation: Validation
    float_scores: dict[tuple[Path, EvalConfig], Score] = field(default_factory=dict)

    @classmethod
    def build(cls, job: Job, ranks: DistContext) -> "EvalHarness":
        config = job.config
        folder = Path(config.data.path)
        model = build_model(config, ranks.device)
        validation = Validation(folder, config.data.tokenizer, ranks)
        return cls(config, ranks, model, make_forward(model, config, ranks.device), folder, validation)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.copy_(weights[name])

    def score(self, weights: Mapping[str, Tensor], settings: EvalConfig, stride: int) -> Score:
        """Load these weights and evaluate: the only way, with `score_ttt`, that a number gets into a record."""
        self.load(weights)
        return self.validation.score(self.forward, settings, stride)

    def score_ttt(self, weights: Mapping[str, Tensor], settings: EvalConfig) -> Score:
        """Load these weights, and evaluate them while they learn from what has been scored."""
        self.load(weights)
        return TestTimeTraining(self.model, self.forward, self.validation, settings, self.ranks).run()

    def float_score(self, path: Path, settings: EvalConfig) -> Score:
        """Plain evaluation of float weights on disk, before quantization; trials that share an average share it."""
        if (path, settings) not in self.float_scores:
            self.float_scores[path, settings] = self.score(load_weights(path), settings, settings.seq_len)
        return self.float_scores[path, settings]


def train(job: Job, folder: TrainedLayout, bench: EvalHarness) -> TrainingRecord:
    """The training run: float weights of every average that a trial of the job exports, and of the last step."""
    started, config, ranks = time.perf_counter(), bench.config, bench.ranks
    events = EventLog(folder.events if ranks.is_main else None)
    if ranks.is_main:  # averages of an earlier training run must not stand beside the record of this one
        for stale in (folder.record, *folder.root.glob("*.safetensors")):
            stale.unlink(missing_ok=True)
    node_tflops = ranks.least(probe_tflops(ranks.device))
    events.write(
        "training", train_fingerprint=job.train_fingerprint, seed=config.seed, world_size=ranks.world_size,
        node=node_name(), node_tflops=node_tflops,
    )  # fmt: skip
    raw_config = config.model_copy(update={"average": config.average.model_copy(update={"kind": "none"})})
    wanted = {**job.averages, LAST_WEIGHTS: raw_config}
    stream = TokenStream(bench.folder, config.train, ranks)
    run = TrainingRun(
        config, bench.model, bench.forward, wanted, stream, ranks, events, bench.validation,
        Checkpoint(folder.checkpoint, ranks),
    )  # fmt: skip
    try:
        trained = run.run()
    finally:
        stream.close()
    record = describe_training(job, bench, trained, node_tflops, time.perf_counter() - started)
    if ranks.is_main:
        for key, weights in trained.weights.items():
            save_weights(folder.weights(key), weights)
        write_json(folder.record, record.model_dump(mode="json"))
    run.checkpoint.remove()
    events.write("trained", steps=trained.steps, train_s=trained.train_s, step_ms=record.step_ms)
    ranks.barrier()
    return record


def export(
    trial: TrialSpec, record: TrainingRecord, layout: RunLayout, job: Job, bench: EvalHarness, training_share_s: float
) -> TrialResult | None:
    """Averaged float weights -> bytes on disk -> numbers measured on what those bytes unpack to."""
    started, config, folder = time.perf_counter(), trial.config, layout.trial(trial.trial_id)
    if bench.ranks.all_true(folder.result.is_file()):
        return TrialResult.model_validate_json(folder.result.read_text())
    bench.forward.is_looped = config.recurrence.kind != "partial" or record.recurrence_on_step is not None
    events = EventLog(folder.events if bench.ranks.is_main else None)
    trained = layout.trained(record.train_fingerprint)
    if bench.ranks.is_main:  # a trial's folder tells its whole story, the shared training run included
        write_bytes(folder.events, trained.events.read_bytes())
    average = trained.weights(average_key(config))

    failure, export_s = None, 0.0
    if bench.ranks.is_main:
        float_weights = load_weights(average)
        export_started = time.perf_counter()
        failure = quantize_and_pack(float_weights, config, folder.artifact, bench.ranks.device)
        export_s = time.perf_counter() - export_started
    if not bench.ranks.all_true(failure is None):
        _write_failure(failure, folder)
        return None
    artifact = read_artifact(folder.artifact)
    weights = artifact.weights
    events.write("packed", trial_id=trial.trial_id, model_bytes=folder.artifact.stat().st_size, export_s=export_s)

    settings = config.eval
    raw_score = bench.float_score(trained.weights(LAST_WEIGHTS), settings)
    float_score = bench.float_score(average, settings)
    eval_started = time.perf_counter()
    post_quant = bench.score(weights, settings, settings.seq_len)
    sliding = bench.score(weights, settings, settings.stride) if settings.stride else None
    ttt = bench.score_ttt(weights, settings) if settings.ttt.enabled else None
    eval_s = time.perf_counter() - eval_started
    scores = [s for s in (raw_score, float_score, post_quant, sliding, ttt) if s]
    if not all(math.isfinite(s.nats) for s in scores):
        reason = f"evaluation gave {', '.join(f'{s.nats:.6g}' for s in scores)} nats"
        _write_failure(JobFailure(kind="diverged", reason=reason) if bench.ranks.is_main else None, folder)
        return None
    silenced = None
    if settings.antilayer:
        silenced = antilayer(weights, post_quant, lambda w: bench.score(w, settings, settings.seq_len))

    model_bytes, num_code_bytes = folder.artifact.stat().st_size, code_bytes(config)
    tensors = byte_ledger(artifact.stored)
    result = TrialResult(
        trial_id=trial.trial_id,
        train_fingerprint=record.train_fingerprint,
        seed=config.seed,
        average=average_key(config),
        float_bpb=float_score.bpb,
        post_quant_bpb=post_quant.bpb,
        quant_gap=post_quant.bpb - float_score.bpb,
        sliding_bpb=sliding.bpb if sliding else None,
        ttt_bpb=ttt.bpb if ttt else None,
        val_loss_nats=post_quant.loss_nats,
        raw_bpb=raw_score.bpb,
        artifact_bytes=model_bytes + num_code_bytes,
        model_bytes=model_bytes,
        code_bytes=num_code_bytes,
        is_within_cap=model_bytes + num_code_bytes <= ARTIFACT_CAP_BYTES,
        entropy_bytes=sum(tensor.entropy_bytes for tensor in tensors),
        eval_s=eval_s,
        export_s=export_s,
        wall_s=time.perf_counter() - started + training_share_s,
        git_sha=job.git_sha,
        code_sha=code_sha(),
        scored_tokens=post_quant.tokens,
        scored_bytes=post_quant.bytes,
        eval_seq_len=settings.seq_len,
        eval_stride=settings.stride or None,
        tensors=tensors,
        antilayer=silenced,
        notes=doubts(config, record, code_sha(), eval_s),
        **record.model_dump(include=SHARED_WITH_TRAINING),
    )
    if bench.ranks.is_main:
        write_json(folder.config, config.model_dump(mode="json"))
        events.write(
            "finished", trial_id=trial.trial_id, float_bpb=result.float_bpb, post_quant_bpb=result.post_quant_bpb,
            quant_gap=result.quant_gap, sliding_bpb=result.sliding_bpb, artifact_bytes=result.artifact_bytes,
        )  # fmt: skip
        write_json(folder.result, result.model_dump(mode="json"))
    bench.ranks.barrier()
    return result


SHARED_WITH_TRAINING = {
    "steps", "train_s", "step_ms", "tokens", "qat_on_step", "qat_coverage", "qat_is_live", "num_params",
    "peak_memory_mib", "world_size", "hardware", "node", "node_tflops", "torch_version", "data_sha", "tokenizer_sha",
}  # fmt: skip


def quantize_and_pack(
    weights: Mapping[str, Tensor], config: Config, path: Path, device: torch.device
) -> JobFailure | None:
    """Write the artifact and read it back: what it unpacks to must be what was packed, bit for bit."""
    on_device = {name: w.to(device) for name, w in weights.items()}
    try:
        stored = store_weights(on_device, config.quant)
        write_bytes(path, pack(stored, config))
        if not equal_weights(read_artifact(path).weights, assemble(stored)):
            return JobFailure(kind="infra", reason=f"{path}: unpacks to other weights than were packed")
    except (PgrayError, ValueError) as error:
        return JobFailure(kind=getattr(error, "kind", "user_error"), reason=str(error))
    return None


def describe_training(
    job: Job, bench: EvalHarness, trained: Trained, node_tflops: float, wall_s: float
) -> TrainingRecord:
    config, ranks = bench.config, bench.ranks
    return TrainingRecord(
        train_fingerprint=job.train_fingerprint,
        steps=trained.steps,
        train_s=trained.train_s,
        step_ms=1000 * trained.train_s / max(trained.steps, 1),
        tokens=trained.steps * config.train.batch_tokens,
        final_train_loss_nats=trained.final_loss_nats,
        qat_on_step=trained.qat_on_step,
        qat_coverage=trained.qat.coverage if trained.qat else None,
        qat_is_live=trained.qat.is_live if trained.qat else None,
        qat_note=trained.qat.note if trained.qat else None,
        recurrence_on_step=trained.recurrence_on_step,
        averages=[average.record() for average in trained.averages],
        num_params=num_params(bench.model),
        peak_memory_mib=peak_memory_mib(ranks.device),
        world_size=ranks.world_size,
        hardware=describe_hardware(ranks),
        node=node_name(),
        node_tflops=node_tflops,
        torch_version=torch.__version__,
        git_sha=job.git_sha,
        code_sha=code_sha(),
        data_sha=data_sha(bench.folder),
        tokenizer_sha=tokenizer_sha(find_tokenizer(bench.folder, config.data.tokenizer)),
        wall_s=wall_s,
    )


def _write_failure(failure: JobFailure | None, folder: TrialLayout) -> None:
    """Say why this export has no result; the job's other trials go on."""
    if failure:
        write_json(folder.failure, failure.model_dump(mode="json"))


def write_failure(job: Job, out: Path, failure: JobFailure) -> None:
    """Why the job stopped; the first rank to know says so."""
    path = RunLayout(out).job(job.job_id).failure
    if not path.is_file():
        write_json(path, failure.model_dump(mode="json"))

"""Builds the records of a training run and of a trial from what was measured."""

import hashlib
from collections.abc import Mapping

import torch

from trainer.data.shards import data_sha, find_tokenizer, tokenizer_sha
from trainer.evaluation.diagnostics import result_notes
from trainer.evaluation.harness import EvalHarness, Evaluation
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.loop import Trained
from trainer.model.model import num_params
from trainer.quant.artifact import Artifact, byte_ledger
from trainer.records.fingerprint import average_key
from trainer.records.job import Job, TrialSpec
from trainer.records.results import TrainingFacts, TrainingRecord, TrialResult
from trainer.run.bundle import code_bytes, code_sha
from trainer.run.hardware import describe_hardware, node_name, peak_memory_mib


def describe_training(
    job: Job, harness: EvalHarness, trained: Trained, node_tflops: float, wall_s: float, sha256: Mapping[str, str]
) -> TrainingRecord:
    """Return the record of a training run. `sha256`: average key -> hash of its file of weights; {} except on rank 0."""
    config, dist = harness.config, harness.dist
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
        averages=[a.record().model_copy(update={"sha256": sha256.get(a.key)}) for a in trained.averages],
        num_params=num_params(harness.model),
        peak_memory_mib=peak_memory_mib(dist.device),
        world_size=dist.world_size,
        hardware=describe_hardware(dist),
        node=node_name(),
        node_tflops=node_tflops,
        train_limit_s=config.train.wallclock_s,
        torch_version=torch.__version__,
        git_sha=job.git_sha,
        code_sha=code_sha(),
        data_sha=data_sha(harness.folder),
        tokenizer_sha=tokenizer_sha(find_tokenizer(harness.folder, config.data.tokenizer)),
        wall_s=wall_s,
    )


def describe_trial(
    trial: TrialSpec, record: TrainingRecord, job: Job, evaluation: Evaluation, artifact: Artifact, packed: bytes,
    export_s: float, wall_s: float,
) -> TrialResult:  # fmt: skip
    config, post_quant, num_code_bytes = trial.config, evaluation.post_quant, code_bytes(trial.config)
    model_bytes = len(packed)
    tensors = byte_ledger(artifact.stored)
    average = record.average(average_key(config))
    return TrialResult(
        trial_id=trial.trial_id,
        seed=config.seed,
        average=average.key,
        initial_share=average.initial_share,
        never_began=average.never_began,
        float_bpb=evaluation.average.bpb,
        post_quant_bpb=post_quant.bpb,
        quant_gap=post_quant.bpb - evaluation.average.bpb,
        sliding_bpb=evaluation.sliding.bpb if evaluation.sliding else None,
        ttt_bpb=evaluation.ttt.bpb if evaluation.ttt else None,
        val_loss_nats=post_quant.loss_nats,
        raw_bpb=evaluation.last.bpb,
        artifact_bytes=model_bytes + num_code_bytes,
        model_bytes=model_bytes,
        code_bytes=num_code_bytes,
        is_within_cap=model_bytes + num_code_bytes <= ARTIFACT_CAP_BYTES,
        entropy_bytes=sum(tensor.entropy_bytes for tensor in tensors),
        eval_s=evaluation.eval_s,
        export_s=export_s,
        wall_s=wall_s,
        git_sha=job.git_sha,
        code_sha=code_sha(),
        scored_tokens=post_quant.tokens,
        scored_bytes=post_quant.bytes,
        eval_seq_len=config.eval.seq_len,
        eval_stride=config.eval.stride or None,
        tensors=tensors,
        antilayer=evaluation.antilayer,
        artifact_sha256=hashlib.sha256(packed).hexdigest(),
        notes=result_notes(config, record, code_sha(), evaluation.eval_s),
        **record.model_dump(include=set(TrainingFacts.model_fields)),
    )

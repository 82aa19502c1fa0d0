"""Replaces `python -m trainer` in tests: writes the same files, in milliseconds and without torch.

Config keys that mean nothing here control it: it takes `train.iterations` steps of `optim.ns_steps` x 10 ms, and an export
takes as long as a step; `optim.muon_momentum_steps` selects an accident (see ACCIDENTS); the loss is worse by
10 x (`optim.matrix_lr` - 0.04); `train.val_every` is the size of the noise between seeds, in 1e-4 bpb; seed 13 has a slow
node. Every launch adds a line to `trained/<fp>/launches.txt`. A launch that finds another one working on the same weights
adds a line to `overlaps.txt`.
"""

import argparse
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from trainer.__main__ import report_failure
from trainer.errors import DivergedError
from trainer.records.events import EventLog
from trainer.records.files import sha256_of, write_sealed, write_text
from trainer.records.fingerprint import LAST_WEIGHTS, average_key
from trainer.records.job import Job, load_job
from trainer.records.layout import RunLayout
from trainer.records.results import AverageRecord, TrainingRecord, TrialResult
from trainer.records.trained import usable_result, usable_training

ACCIDENTS = {
    0: "none",
    1: "reports that it diverged",
    2: "dies of an exception",
    3: "hangs",
    4: "rank 0 is killed by SIGKILL",
    5: "leaves a process behind in another session",
    6: "succeeds without a result",
    7: "ignores SIGTERM",
    8: "writes half a result",
    9: "runs out of memory",
    10: "rank 0 is killed by SIGKILL, the first time",
    11: "finds the disk full",
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    job = load_job(args.config)
    layout = RunLayout(args.out)
    is_main = int(os.environ.get("RANK", 0)) == 0
    if job.config.optim.muon_momentum_steps == 7:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(f"fake trainer: job {job.job_id}, rank {os.environ.get('RANK', 0)}, pid {os.getpid()}", flush=True)
    print(f"CUDA_VISIBLE_DEVICES {os.environ.get('CUDA_VISIBLE_DEVICES')}", flush=True)
    try:
        run(job, layout, is_main)
    except Exception as error:
        return report_failure(error, job, args.out)
    return 0


def run(job: Job, layout: RunLayout, is_main: bool) -> None:
    trained = layout.trained(job.train_fingerprint)
    trained.root.mkdir(parents=True, exist_ok=True)
    with (trained.root / "at_work.lock").open("a") as lock:
        if usable_training(trained, (trial.config for trial in job.trials)) is None:
            claim(lock, fcntl.LOCK_EX, is_main)
            train(job, layout, is_main)
        claim(lock, fcntl.LOCK_SH, is_main)
        if is_main and job.config.optim.muon_momentum_steps != 6:
            for trial in job.trials:
                export(trial.trial_id, job, layout)


def claim(lock: IO[str], how: int, is_main: bool) -> None:
    """Lock the weights until this process ends, exclusively while it trains; record it if another process has the lock."""
    try:
        if is_main:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        with Path(lock.name).with_name("overlaps.txt").open("a") as file:
            file.write(f"{os.getpid()}\n")


def train(job: Job, layout: RunLayout, is_main: bool) -> None:
    trained = layout.trained(job.train_fingerprint)
    events = EventLog(trained.events if is_main else None)
    if is_main:
        with (trained.root / "launches.txt").open("a") as file:
            file.write(f"{job.job_id}\n")
    for step in range(1, job.config.train.iterations + 1):
        time.sleep(job.config.optim.ns_steps / 100)
        events.write("step", step=step, train_s=step / 100, train_loss_nats=loss_at(job, step))
        if step == job.config.train.iterations // 2 and is_main:
            accident(job)
    if is_main:
        finish_training(job, layout)


def loss_at(job: Job, step: int) -> float:
    return 7 + 10 * (job.config.optim.matrix_lr - 0.04) - step / 1000


def finish_training(job: Job, layout: RunLayout) -> None:
    """Write the weights and the record of a finished training run."""
    trained = layout.trained(job.train_fingerprint)
    keys = {*job.averages, LAST_WEIGHTS}
    for key in keys:
        write_text(trained.weights(key), f"not weights, but those of {job.train_fingerprint}\n")
    averages = [AverageRecord(key=key, sha256=sha256_of(trained.weights(key))) for key in keys]
    record = TrainingRecord(
        train_fingerprint=job.train_fingerprint, steps=job.config.train.iterations, train_s=1.0, step_ms=10.0,
        tokens=1000, final_train_loss_nats=None, qat_on_step=None, qat_coverage=None, qat_is_live=None,
        averages=averages, num_params=1000, peak_memory_mib=None,
        world_size=int(os.environ.get("WORLD_SIZE", 1)), hardware="1 x fake", node="fake", torch_version="0",
        data_sha="d", tokenizer_sha="t", wall_s=2.0,
    )  # fmt: skip
    write_sealed(trained.record, record.model_dump(mode="json"))


def accident(job: Job) -> None:
    match job.config.optim.muon_momentum_steps:
        case 1:
            raise DivergedError("training loss is nan at step 3")
        case 2:
            raise RuntimeError("the flux compensator is missing")
        case 3:
            time.sleep(3600)
        case 4:
            os.kill(os.getpid(), signal.SIGKILL)
        case 10 if job.job_id.endswith("-0"):
            os.kill(os.getpid(), signal.SIGKILL)
        case 11:
            Path("/dev/full").write_text("x")
        case 5:
            subprocess.Popen(["sleep", "3600"], start_new_session=True)
        case 9:
            raise MemoryError("cannot allocate 80 GiB")


def export(trial_id: str, job: Job, layout: RunLayout) -> None:
    folder = layout.trial(trial_id)
    config = next(trial.config for trial in job.trials if trial.trial_id == trial_id)
    if usable_result(folder) is not None:
        return
    if job.config.optim.muon_momentum_steps == 8:
        folder.result.write_text('{"trial_id": "' + trial_id)
        return
    time.sleep(job.config.optim.ns_steps / 100)
    noise = 1e-4 * config.train.val_every * random.Random(f"{config.seed}-{config.quant.bits.mlp}").gauss()
    gap = {8: 0.001, 6: 0.01, 4: 0.1}.get(config.quant.bits.mlp, 0.05) + noise
    result = TrialResult(
        trial_id=trial_id, train_fingerprint=job.train_fingerprint, seed=config.seed, average=average_key(config),
        float_bpb=1.2, post_quant_bpb=1.2 + gap, quant_gap=gap, sliding_bpb=1.15 + gap, ttt_bpb=None, val_loss_nats=2.0,
        raw_bpb=1.3, artifact_bytes=15_000_000, model_bytes=14_900_000, code_bytes=100_000, is_within_cap=True,
        entropy_bytes=14e6, steps=config.train.iterations, train_s=1.0, step_ms=10.0, tokens=1000, eval_s=1.0, export_s=1.0,
        wall_s=3.0, qat_on_step=None, qat_coverage=None, qat_is_live=None, num_params=1000, peak_memory_mib=None,
        world_size=int(os.environ.get("WORLD_SIZE", 1)), hardware="1 x fake", node="fake", torch_version="0",
        git_sha=job.git_sha, code_sha=job.code_sha, node_tflops=50.0 if config.seed == 13 else 100.0, data_sha="d",
        tokenizer_sha="t", scored_tokens=10, scored_bytes=20, eval_seq_len=8, eval_stride=None,
    )  # fmt: skip
    write_text(folder.artifact, f"not a model, but that of {trial_id}\n")
    result = result.model_copy(update={"artifact_sha256": sha256_of(folder.artifact)})
    write_sealed(folder.result, result.model_dump(mode="json"))


if __name__ == "__main__":
    sys.exit(main())

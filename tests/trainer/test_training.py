"""Small real training runs: equal losses on several ranks, exact resuming, gates, and failures with a reason."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.conftest import job_of, write_job
from trainer.config import Config
from trainer.data.stream import TokenStream
from trainer.optim.schedule import TrainProgress, is_open, lr_scale, train_progress
from trainer.pipeline import run_job
from trainer.records.events import read_events
from trainer.records.fingerprint import average_key
from trainer.records.job import Job
from trainer.records.layout import RunLayout
from trainer.records.results import TrainingRecord, TrialResult
from trainer.run.dist import DistContext
from trainer.section import Start

ROOT = Path(__file__).parents[2]


def trainer_command(job: Path, out: Path, nproc: int) -> list[str]:
    arguments = ["-m", "trainer", "--config", str(job), "--out", str(out)]
    if nproc == 1:
        return [sys.executable, *arguments]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={nproc}", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def train_in_process(job: Job, tmp_path: Path, nproc: int) -> RunLayout:
    """Run a job as a user does without Ray; nproc 2 is real torchrun with gloo."""
    out = tmp_path / f"out{nproc}"
    path = write_job(tmp_path / f"job{nproc}.json", job)
    done = subprocess.run(
        trainer_command(path, out, nproc), env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return RunLayout(out)


def losses(layout: RunLayout) -> list[float]:
    return [e["train_loss_nats"] for e in read_events(layout.trained("f").events) if e["event"] == "step"]


def result(layout: RunLayout, trial: str = "trial0") -> TrialResult:
    return TrialResult.model_validate_json(layout.trial(trial).result.read_text())


@pytest.mark.parametrize(("is_qat", "tolerance"), [(False, 1e-4), (True, 1e-2)])
def test_two_ranks_give_the_same_losses_as_one(
    tiny: Callable[..., Config], tmp_path: Path, is_qat: bool, tolerance: float
) -> None:
    """20 steps without a gradient clip, which each rank applies to its own gradient; 3 layers over 2 ranks pad a bank.

    Under QAT the tolerance is wider: sums in another order move weights by 1e-7, and some of them across a rounding
    boundary of int4, which is a whole step.
    """
    overrides = {"qat.enabled": is_qat, "qat.start": {"kind": "step", "value": 8}, "average.kind": "ema"}
    config = tiny(**{"train.iterations": 20, "train.grad_clip": 0.0, "quant.bits.mlp": 4, **overrides})
    one, two = (train_in_process(job_of(config), tmp_path, n) for n in (1, 2))
    a, b = torch.tensor(losses(one)), torch.tensor(losses(two))
    assert len(a) == 20
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
    r1, r2 = result(one), result(two)
    assert (r1.scored_tokens, r1.scored_bytes) == (r2.scored_tokens, r2.scored_bytes)
    assert r1.post_quant_bpb == pytest.approx(r2.post_quant_bpb, abs=tolerance)
    assert (r1.world_size, r2.world_size) == (1, 2)
    assert (r2.qat_on_step, r2.qat_is_live, r2.qat_coverage) == ((8, True, 1.0) if is_qat else (None, None, None))


def test_the_ranks_divide_each_batch(tiny: Callable[..., Config], tiny_data: Path) -> None:
    train = tiny(**{"train.batch_tokens": 768, "train.micro_batch_tokens": 100}).train
    whole = TokenStream(tiny_data, train, DistContext(0, 1, torch.device("cpu")), 1024)
    parts = [TokenStream(tiny_data, train, DistContext(r, 3, torch.device("cpu")), 1024) for r in range(3)]
    for step in (0, 1, 38, 39, 40, whole.num_blocks + 1):  # 39 crosses from one shard into the next
        expected = whole.batch(step).tokens_MBT.flatten()
        assert torch.equal(expected, torch.cat([p.batch(step).tokens_MBT.flatten() for p in parts]))
        targets = whole.batch(step).targets_MBT.flatten()
        assert torch.equal(targets[:-1], expected[1:])
    for stream in (whole, *parts):
        stream.close()


def test_micro_batches_do_not_change_the_gradient(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    runs = []
    for micro in (512, 96):
        config = tiny(**{"train.micro_batch_tokens": micro, "train.iterations": 4, "eval.stride": 0})
        run_job(job_of(config), tmp_path / str(micro), alone)
        runs.append(torch.tensor(losses(RunLayout(tmp_path / str(micro)))))
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=1e-5)


def test_exports_share_one_training_run_and_a_rerun_does_not_train(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    configs = [tiny(), tiny(**{"quant.bits.mlp": 4}), tiny(**{"average.kind": "ema", "export.codec": "ans"})]
    results = run_job(job_of(*configs), tmp_path, alone)
    assert [r.trial_id for r in results] == ["trial0", "trial1", "trial2"]
    assert results[0].float_bpb == results[1].float_bpb  # the same weights
    assert results[1].model_bytes < results[0].model_bytes
    assert results[2].average == average_key(configs[2])
    layout = RunLayout(tmp_path)
    assert sum(e["event"] == "training" for e in read_events(layout.trained("f").events)) == 1
    layout.trial("trial1").result.unlink()
    again = run_job(job_of(*configs, tiny(**{"export.codec": "zstd"})), tmp_path, alone)
    assert sum(e["event"] == "training" for e in read_events(layout.trained("f").events)) == 1
    assert again[1].post_quant_bpb == results[1].post_quant_bpb
    assert len(again) == 4


def test_the_result_agrees_with_the_files(tiny: Callable[..., Config], tmp_path: Path, alone: DistContext) -> None:
    config = tiny(**{"average.kind": "ema"})
    (r,) = run_job(job_of(config), tmp_path, alone)
    layout = RunLayout(tmp_path)
    assert r.model_bytes == layout.trial("trial0").artifact.stat().st_size
    assert r.quant_gap == pytest.approx(r.post_quant_bpb - r.float_bpb, abs=1e-12)
    assert r.steps == 12
    assert r.tokens == 12 * 512
    assert r.scored_tokens == 1984  # 2,000 validation tokens: 62 whole sequences of 32
    assert r.num_params == sum(w.numel() for w in load_file(layout.trained("f").weights("last")).values())
    assert r.entropy_bytes == pytest.approx(sum(t.entropy_bytes for t in r.tensors))
    assert (r.qat_on_step, r.qat_coverage, r.qat_is_live, r.ttt_bpb) == (None, None, None, None)
    record = TrainingRecord.model_validate_json(layout.trained("f").record.read_text())
    ema = record.average(r.average)
    assert r.initial_share == ema.initial_share == pytest.approx(0.997**12)
    assert (r.never_began, r.train_limit_s) == (False, config.train.wallclock_s)


def test_qat_without_effect_fails_with_a_reason(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """PR 1032's bug: QAT that wraps only tensors which export keeps in fp16."""
    config = tiny(
        **{
            "qat.enabled": True,
            "qat.scope": ["bigram"],
            "quant.bits.bigram": 16,
            "qat.start": {"kind": "step", "value": 2},
        }
    )
    path = write_job(tmp_path / "job.json", job_of(config))
    done = subprocess.run(
        trainer_command(path, tmp_path / "out", 1), env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    failure = json.loads((tmp_path / "out/jobs/job/failure.json").read_text())
    assert failure["kind"] == "user_error"
    assert "covers none of the exported integer elements" in failure["reason"]
    assert not (tmp_path / "out/trials/trial0/result.json").exists()


def test_divergence_fails_with_its_kind_and_step(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny(**{"optim.embed_lr": 1e30, "optim.scalar_lr": 1e30, "train.grad_clip": 0})
    path = write_job(tmp_path / "job.json", job_of(config))
    done = subprocess.run(
        trainer_command(path, tmp_path / "out", 1), env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    failure = json.loads((tmp_path / "out/jobs/job/failure.json").read_text())
    assert failure["kind"] == "diverged"
    assert "step" in failure["reason"]


def test_qat_whose_gate_never_opened_is_not_live(
    tiny: Callable[..., Config], tmp_path: Path, alone: DistContext
) -> None:
    config = tiny(**{"qat.enabled": True, "qat.start": {"kind": "step", "value": 1000}})
    (r,) = run_job(job_of(config), tmp_path, alone)
    assert r.qat_on_step is None
    assert r.qat_is_live is False
    assert "never opened" in r.notes[0]


@pytest.mark.parametrize("nproc", [1, 2])
def test_resuming_after_a_kill_is_bit_identical(tiny: Callable[..., Config], tmp_path: Path, nproc: int) -> None:
    overrides: dict[str, Any] = {"average.kind": "sqwa", "average.decay": 0.9, "average.every": 2, "qna.magnitude": 1.0}
    qat = {"qat.enabled": True, "qat.start": {"kind": "step", "value": 30}, "optim.muon_variant": "muon_vs"}
    config = tiny(**{"train.iterations": 60, "optim.warmdown.value": 40, **overrides, **qat, "eval.stride": 0})
    whole = train_in_process(job_of(config), tmp_path, nproc)

    often = config.model_copy(update={"train": config.train.model_copy(update={"checkpoint_every_s": 0.01})})
    path, out = write_job(tmp_path / "often.json", job_of(often)), tmp_path / "often"
    process = subprocess.Popen(
        trainer_command(path, out, nproc), env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    latest = out / "trained/f/checkpoint/latest.json"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if latest.is_file() and json.loads(latest.read_text())["step"] >= 7:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    time.sleep(2.5 if nproc > 1 else 0)  # ranks see within a second that their agent is gone
    done = subprocess.run(
        trainer_command(path, out, nproc), env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    events = read_events(out / "trained/f/events.jsonl")
    assert any(e["event"] == "resumed" and e["step"] >= 7 for e in events)
    for name in ("last", average_key(config)):
        a, b = (load_file(folder.trained("f").weights(name)) for folder in (whole, RunLayout(out)))
        assert all(torch.equal(a[n], b[n]) for n in a), name
    assert not latest.exists()


def test_lr_falls_by_steps_or_by_the_clock_whichever_ends_first(tiny: Callable[..., Config]) -> None:
    config = tiny(**{"train.iterations": 1000, "train.wallclock_s": 600.0, "optim.warmdown.value": 100})
    optim, train = config.optim, config.train
    assert lr_scale(optim, train, 0, 0.0, 0.0) == 1
    assert lr_scale(optim, train, 950, 1.0, 0.95) == pytest.approx(0.5)
    # 1 s a step: the clock ends the run at step 600, so warm-down starts at 500
    assert lr_scale(optim, train, 499, 499.0, 0.83) == 1
    assert lr_scale(optim, train, 550, 550.0, 0.92) == pytest.approx(0.5)
    share = tiny(**{"optim.warmdown.kind": "wallclock_frac", "optim.warmdown.value": 0.4, "optim.warmdown.min_lr": 0.1})
    now = train_progress(share, 9, 0.0)  # 12 steps: progress 0.75
    assert now.lr_scale == pytest.approx(0.1 + 0.9 * 0.25 / 0.4)


def test_gates_open_by_all_four_kinds() -> None:
    now = TrainProgress(step=10, elapsed_s=6.0, progress=0.65, lr_scale=0.149)
    assert is_open(Start(kind="immediately"), TrainProgress(0, 0.0, 0.0, 1.0))
    assert is_open(Start(kind="step", value=10), now)
    assert not is_open(Start(kind="step", value=11), now)
    assert is_open(Start(kind="lr_scale", value=0.15), now)
    assert not is_open(Start(kind="lr_scale", value=0.149), now)
    assert is_open(Start(kind="wallclock_frac", value=0.65), now)
    assert not is_open(Start(kind="wallclock_frac", value=0.66), now)


def test_warm_up_changes_no_loss(tiny: Callable[..., Config], tmp_path: Path, alone: DistContext) -> None:
    runs = []
    for warmup in (0, 5):
        config = tiny(**{"train.warmup_steps": warmup, "train.iterations": 4, "qna.magnitude": 1.0, "eval.stride": 0})
        run_job(job_of(config), tmp_path / str(warmup), alone)
        runs.append(losses(RunLayout(tmp_path / str(warmup))))
    assert runs[0] == runs[1]


def test_the_clock_ends_the_run(tiny: Callable[..., Config], tmp_path: Path, alone: DistContext) -> None:
    config = tiny(**{"train.iterations": 100_000, "train.wallclock_s": 0.5, "train.val_every": 1, "eval.stride": 0})
    (r,) = run_job(job_of(config), tmp_path, alone)
    assert 0.5 <= r.train_s < 5
    assert 1 <= r.steps < 100_000
    assert any(e["event"] == "val" for e in read_events(RunLayout(tmp_path).trained("f").events))

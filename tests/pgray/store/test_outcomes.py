"""What went wrong, told from what is on disk. Failures as they really happen: test_driver.py."""

from pathlib import Path
from typing import Any

import pytest

from pgray.store.outcomes import Ending, last_line, read_result, trial_ending
from trainer.records.files import write_json, write_text
from trainer.records.layout import RunLayout

TORCHRUN_SUMMARY = """
E1121 04:20:26 api.py:984] failed (exitcode: 1) local_rank: 0 (pid: 12) of binary: /usr/bin/python
============================================================
train.py FAILED
------------------------------------------------------------
Root Cause (first observed failure):
  exitcode  : {code} (pid: 12)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""


def ending(tmp_path: Path, log: str = "", exit_record: dict[str, Any] | None = None, **options: Any) -> Ending:
    layout = RunLayout(tmp_path)
    job = layout.job("j-0")
    write_text(job.log, log)
    if exit_record is not None:
        write_json(job.exit, {"code": None, "stop": None, "error": None, **exit_record})
    return trial_ending(layout.trial("t"), job, **{"is_stopping": False, **options})


@pytest.mark.parametrize(
    ("log", "exit_record", "kind", "reason"),
    [
        ("step 1\n", {"stop": "timeout", "timeout_s": 60.0}, "timeout", "ran longer than 60 s; last line: step 1"),
        ("step 1\nkilled\n", {"code": -9}, "infra", "killed by SIGKILL; last line: killed"),
        ("step 1\n" + TORCHRUN_SUMMARY.format(code=-11), {"code": 1}, "infra", "killed by SIGSEGV; last line: step 1"),
        (
            "x\ntorch.OutOfMemoryError: CUDA out of memory. Tried\n",
            {"code": 1},
            "oom",
            "torch.OutOfMemoryError: CUDA out",
        ),
        ("OSError: [Errno 28] No space left on device\n", {"code": 1}, "infra", "No space left on device"),
        ("torch.distributed.DistBackendError: NCCL error in: x\n", {"code": 1}, "infra", "NCCL error in: x"),
        ("Traceback (most recent call last):\n  File x\nKeyError: 3\n", {"code": 1}, "user_error", "KeyError: 3"),
        ("no idea\n", {"code": 7}, "infra", "exit code 7; last line: no idea"),
        ("", {"code": 7}, "infra", "exit code 7; last line: the log is empty"),
        ("", {"code": 0}, "infra", "ended with exit code 0, but result.json was not written"),
        ("", {"error": "cannot start python: gone"}, "infra", "cannot start python: gone"),
        ("", {"stop": "supervisor"}, "infra", "the job's supervisor died"),
        ("", {"stop": "sigterm", "code": 1}, "preempted", "its supervisor was sent SIGTERM"),
        ("", {"stop": "lifeline", "code": 1}, "infra", "its Ray worker died before the job was over"),
        ("", None, "infra", "its Ray worker died before the job was over"),
    ],
)
def test_from_exit_and_log(tmp_path: Path, log: str, exit_record: dict[str, Any], kind: str, reason: str) -> None:
    found = ending(tmp_path, log, exit_record)
    assert (found.state, found.kind) == ("failed", kind)
    assert found.reason is not None
    assert reason in found.reason


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.", "oom"),
        ("The actor died because its node was preempted.", "preempted"),
        ("The actor is dead because all references to it were removed.", "infra"),
    ],
)
def test_what_ray_says_about_a_dead_worker(tmp_path: Path, error: str, kind: str) -> None:
    found = ending(tmp_path, "", {"stop": "lifeline", "code": 1}, worker_error=error)
    assert found.kind == kind
    assert error in str(found.reason)


def test_the_trainers_word_beats_the_log_and_the_trials_beats_the_jobs(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    log = "CUDA out of memory\n"
    write_json(layout.job("j-0").failure, {"kind": "diverged", "reason": "loss is nan\nat step 3"})
    assert ending(tmp_path, log, {"code": 1}) == Ending("failed", "diverged", "loss is nan at step 3")
    write_json(layout.trial("t").failure, {"kind": "data_error", "reason": "no shard"})
    assert ending(tmp_path, log, {"code": 1}) == Ending("failed", "data_error", "no shard")


def test_a_stopped_job_of_a_stopping_driver_is_queued_and_not_failed(tmp_path: Path) -> None:
    assert ending(tmp_path, "", {"stop": "lifeline"}, is_stopping=True).state == "queued"
    assert ending(tmp_path, "", None, is_stopping=True).state == "queued"
    assert ending(tmp_path / "b", "x\n", {"code": 3}, is_stopping=True).state == "failed"


@pytest.mark.parametrize("text", ["{half", "[]", '{"trial_id": "t"}', ""])
def test_a_result_that_is_not_whole_is_none(tmp_path: Path, text: str) -> None:
    trial = RunLayout(tmp_path).trial("t")
    write_text(trial.result, text)
    assert read_result(trial) is None


def test_the_last_line_passes_over_torchruns_summary(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("ValueError: the cause\n" + TORCHRUN_SUMMARY.format(code=1))
    assert last_line(log) == "ValueError: the cause"

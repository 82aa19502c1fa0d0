"""Determine how a trial ended from files on disk. `tests/pgray/scheduler/test_driver.py` produces real failures."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pgray.store import exit_record
from pgray.store.exit_record import ExitRecord, StopReason
from pgray.store.outcomes import Ending, last_lines, read_result, trial_ending
from pgray.store.process_records import Driver, SupervisorSpec, read_record
from trainer.records.files import write_json, write_text
from trainer.records.layout import RunLayout
from trainer.records.states import TrialState

TORCHRUN_SUMMARY = """
W1121 04:20:26.165000 15133 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 11 closing signal SIGTERM
E1121 04:20:26.176000 15133 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: {code}) local_rank: 1
Traceback (most recent call last):
  File "/lib/torch/distributed/launcher/api.py", line 194, in __call__
    return launch_agent(
           ^^^^^^^^^^^^^
  File "/lib/torch/distributed/launcher/api.py", line 383, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-21_04:20:26
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 11)  (SIGTERM)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 11
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-21_04:20:26
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 12)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""


def ending(tmp_path: Path, log: str = "", record: dict[str, Any] | None = None, **options: Any) -> Ending:
    layout = RunLayout(tmp_path)
    job = layout.job("j-0")
    write_text(job.log, log)
    if record is not None:
        write_json(job.exit, {"code": None, "stop": None, "error": None, **record})
    return trial_ending(layout.trial("t"), job, **{"is_stopping": False, **options})


@pytest.mark.parametrize(
    ("log", "record", "kind", "reason"),
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
        (
            "Traceback (most recent call last):\nKeyError: 3\n" + TORCHRUN_SUMMARY.format(code=1),
            {"code": 1},
            "user_error",
            "KeyError: 3",
        ),
        ("step 1\n" + TORCHRUN_SUMMARY.format(code=7), {"code": 1}, "infra", "exit code 1; last line: step 1"),
        ("no idea\n", {"code": 7}, "infra", "exit code 7; last line: no idea"),
        ("", {"code": 7}, "infra", "exit code 7; last line: the log is empty"),
        ("", {"code": 0}, "infra", "ended with exit code 0, but result.json was not written"),
        ("", {"error": "cannot start python: gone"}, "infra", "cannot start python: gone"),
        ("", {"stop": "supervisor"}, "infra", "the job's supervisor died"),
        ("", {"stop": "sigterm", "code": 1}, "preempted", "the job's supervisor received SIGTERM"),
        ("", {"stop": "lifeline", "code": 1}, "infra", "the job's Ray worker died"),
        ("", {"stop": "solar flare", "code": 1}, "infra", "this version of pgray does not know: solar flare"),
        ("", None, "infra", "the job's Ray worker died"),
    ],
)
def test_from_exit_and_log(tmp_path: Path, log: str, record: dict[str, Any], kind: str, reason: str) -> None:
    found = ending(tmp_path, log, record)
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
def test_rays_message_about_a_dead_worker_gives_the_kind(tmp_path: Path, error: str, kind: str) -> None:
    found = ending(tmp_path, "", {"stop": "lifeline", "code": 1}, worker_error=error)
    assert found.kind == kind
    assert error in str(found.reason)


def test_failure_records_are_used_before_the_log_and_the_trials_before_the_jobs(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    log = "CUDA out of memory\n"
    write_json(layout.job("j-0").failure, {"kind": "diverged", "reason": "loss is nan\nat step 3"})
    assert ending(tmp_path, log, {"code": 1}) == Ending("failed", "diverged", "loss is nan at step 3")
    write_json(layout.trial("t").failure, {"kind": "data_error", "reason": "no shard"})
    assert ending(tmp_path, log, {"code": 1}) == Ending("failed", "data_error", "no shard")


def test_a_job_that_the_driver_stopped_is_queued_and_not_failed(tmp_path: Path) -> None:
    assert ending(tmp_path, "", {"stop": "lifeline"}, is_stopping=True).state == "queued"
    assert ending(tmp_path, "", None, is_stopping=True).state == "queued"
    assert ending(tmp_path / "b", "x\n", {"code": 3}, is_stopping=True).state == "failed"


@pytest.mark.parametrize("text", ["{half", "[]", '{"trial_id": "t"}', ""])
def test_an_invalid_result_is_none(tmp_path: Path, text: str) -> None:
    trial = RunLayout(tmp_path).trial("t")
    write_text(trial.result, text)
    assert read_result(trial) is None


def test_last_lines_skips_torchruns_summary(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("ValueError: the cause\n" + TORCHRUN_SUMMARY.format(code=1))
    assert last_lines(log) == "ValueError: the cause"


ENDINGS = {
    StopReason.TIMEOUT: (TrialState.FAILED, "timeout", "ran longer than 60 s; last line: step 1"),
    StopReason.STALL: (TrialState.FAILED, "timeout", "printed nothing for 9 s; last lines: step 0 | step 1"),
    StopReason.KILLED: (TrialState.KILLED, None, "worse than the control"),
    StopReason.SIGTERM: (TrialState.FAILED, "preempted", "the job's supervisor received SIGTERM"),
    StopReason.LIFELINE: (TrialState.FAILED, "infra", "the job's Ray worker died"),
    StopReason.SUPERVISOR: (TrialState.FAILED, "infra", "the job's supervisor died"),
    StopReason.PEER: (TrialState.FAILED, "preempted", "another node of the job failed"),
    StopReason.LOST: (TrialState.FAILED, "infra", "node 1 of the job left no exit record"),
    StopReason.REPLACED: (TrialState.FAILED, "preempted", "another driver took over the run before the job started"),
}


@pytest.mark.parametrize("stop", StopReason)
def test_every_stop_reason_gives_an_ending(stop: StopReason, tmp_path: Path) -> None:
    error = "node 1 of the job left no exit record" if stop == StopReason.LOST else None
    record = ExitRecord(code=1, stop=stop, error=error, timeout_s=60.0, stall_s=9.0)
    write_json(RunLayout(tmp_path).job("j-0").kill, {"reason": "worse than the control"})
    assert ending(tmp_path, "step 0\nstep 1\n", asdict(record)) == Ending(*ENDINGS[stop])


def test_exit_records_of_other_versions_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "exit.json"
    write_json(path, {"code": 3, "started_at": 1.0, "ended_at": 3.5, "weather": "fine"})
    record = read_record(ExitRecord, path)
    assert record is not None
    assert (record.code, record.stop, record.duration_s, record.is_failure) == (3, None, 2.5, True)
    write_json(path, {"code": 0})
    record = read_record(ExitRecord, path)
    assert record is not None
    assert (record.duration_s, record.is_failure) == (None, False)
    assert read_record(ExitRecord, tmp_path / "none.json") is None


def test_a_specification_of_an_old_run_needs_only_its_token(tmp_path: Path) -> None:
    path = tmp_path / "launch.json"
    write_json(path, {"token": "t", "driver": {"pid": 7, "host": "h", "created": 1.0, "colour": "green"}})
    spec = SupervisorSpec.read(path)
    assert spec is not None
    assert (spec.token, spec.driver) == ("t", Driver(pid=7, host="h", created=1.0))
    write_json(path, asdict(spec))
    assert SupervisorSpec.read(path) == spec
    write_json(path, {"rank": 0})
    assert SupervisorSpec.read(path) is None


@pytest.mark.parametrize("second", [None, ExitRecord(code=3, ended_at=5.0), ExitRecord(code=0, ended_at=9.0)])
def test_the_exit_record_of_two_nodes_is_that_of_the_node_that_failed_first(
    second: ExitRecord | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exit_record, "_END_S", 0.0)
    spec = SupervisorSpec("t", str(tmp_path), "j", num_nodes=2)
    if second is not None:
        other = replace(spec, rank=1)
        exit_record.write_exit(other, replace(second, started_at=1.0, survivors=[8]), must_end=lambda: False)
        assert exit_record.has_failed_peer(spec) == (second.code == 3)
    first = ExitRecord(code=-9, stop=StopReason.PEER, node="a", started_at=2.0, ended_at=6.0, survivors=[7])
    exit_record.write_exit(spec, first, must_end=lambda: True)
    written = json.loads(RunLayout(tmp_path).job("j").exit.read_text())
    assert written["node"] == "a"
    assert [node["rank"] for node in written["nodes"]] == [0, 1]
    if second is None:
        assert (written["stop"], written["error"]) == ("lost", "node 1 of the job left no exit record")
    elif second.code == 3:
        assert (written["code"], written["stop"], written["log"]) == (3, None, "log-1.txt")
        assert (written["started_at"], written["ended_at"], written["survivors"]) == (1.0, 6.0, [7, 8])
    else:
        assert (written["code"], written["stop"], written["log"]) == (-9, "peer", "log.txt")

"""How a trial ended, from what its job left on disk: the result, the trainer's own word, the exit, the log's last line.

The most specific witness wins: a valid result; the supervisor's timeout; the trial's failure record; the job's; signs in
the log; the exit code. What is left over is `infra`, the one kind that a rerun tries again without being asked.
"""

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pgray.store import storage_errors as disk
from trainer.errors import FailureKind
from trainer.records.files import read_json
from trainer.records.layout import JobLayout, TrialLayout
from trainer.records.results import JobFailure, TrialResult
from trainer.records.states import TrialState

_Model = TypeVar("_Model", bound=BaseModel)
_TAIL_BYTES = 20_000
_SIGNS: tuple[tuple[re.Pattern[str], FailureKind], ...] = (
    (
        re.compile(
            r"OutOfMemoryError|CUDA out of memory|^MemoryError|DefaultCPUAllocator: can't allocate memory", re.M
        ),
        "oom",
    ),
    (disk.SIGN, "infra"),
    (
        re.compile(r"NCCL error|ncclSystemError|ncclRemoteError|Connection closed by peer|CUDA error|ECC error", re.M),
        "infra",
    ),
)
_TRACEBACK = re.compile(r"^(?:\[rank\d+\]:\s*)?Traceback \(most recent call last\)", re.M)
_RANK_SIGNAL = re.compile(r"exitcode\s*:\s*-(\d+)|Signal (\d+) \(SIG\w+\) received by PID")
_NOISE = re.compile(  # rulers, frames of a traceback, and torchrun's own summary of what its ranks did
    r"^[\s=\-*.^~]*$|^\s+File |^[WE]\d{4} |ChildFailedError|elastic|<NO_OTHER_FAILURES>|^Root Cause|^Failures:| FAILED$"
    r"|^\s+(?:exitcode|error_file|traceback|time|host|rank)\s*:"
)


@dataclass(frozen=True)
class Ending:
    """`state` is `queued` where the trial was only interrupted and is to be run again, `killed` where a rule ended it."""

    state: TrialState
    kind: FailureKind | None = None
    reason: str | None = None


def trial_ending(trial: TrialLayout, job: JobLayout, is_stopping: bool, worker_error: str | None = None) -> Ending:
    """How one trial of an ended job ended.

    Args:
        trial, job: where the records are.
        is_stopping: the driver itself is stopping its jobs, so a stopped job has not failed.
        worker_error: what Ray said about the job's worker.
    """
    if read_result(trial) is not None:
        return Ending(TrialState.FINISHED)
    exit_record = read_json(job.exit)  # {} if the supervisor did not get to writing it
    log = _log(job, exit_record)
    if exit_record.get("stop") == "timeout":
        reason = f"ran longer than {exit_record.get('timeout_s', 0):.0f} s; last line: {last_line(log)}"
        return Ending(TrialState.FAILED, "timeout", reason)
    if exit_record.get("stop") == "stall":
        reason = f"said nothing for {exit_record.get('stall_s', 0):.0f} s; last lines: {' | '.join(last_lines(log))}"
        return Ending(TrialState.FAILED, "timeout", one_line(reason))
    if exit_record.get("stop") == "killed":
        return Ending(TrialState.KILLED, None, one_line(str(read_json(job.kill).get("reason", "killed by a rule"))))
    if is_stopping and (not exit_record or exit_record.get("stop")):
        return Ending(TrialState.QUEUED, None, "interrupted before it ended")
    for path in (trial.failure, job.failure):
        failure = _read(JobFailure, path)
        if failure is not None:
            return Ending(TrialState.FAILED, failure.kind, one_line(failure.reason))
    if not exit_record or exit_record.get("stop") == "lifeline":
        return _worker_died(worker_error)
    return _from_exit(trial, job, exit_record)


def read_result(trial: TrialLayout) -> TrialResult | None:
    """The trial's result, if it is there, whole, and this trial's."""
    result = _read(TrialResult, trial.result)
    return result if result is not None and result.trial_id == trial.root.name else None


def last_line(log: Path) -> str:
    """The last line of a log that says something, for a reason. Torchrun's own summary is passed over."""
    return last_lines(log)[-1]


def last_lines(log: Path, count: int = 3) -> list[str]:
    lines = [one_line(line) for line in _tail(log).splitlines() if not _NOISE.search(line)]
    return lines[-count:] or ["the log is empty"]


def one_line(text: str) -> str:
    return " ".join(text.split())[:400]


def _worker_died(error: str | None) -> Ending:
    """Ray ends a worker when memory runs out or its node is taken away, and says so in its error."""
    kind: FailureKind = "infra"
    if error and re.search(r"OutOfMemory|running low on memory", error):
        kind = "oom"
    elif error and "preempted" in error:
        kind = "preempted"
    said = f": {one_line(error)}" if error else ""
    return Ending(TrialState.FAILED, kind, f"its Ray worker died before the job was over{said}")


def _from_exit(trial: TrialLayout, job: JobLayout, exit_record: Mapping[str, Any]) -> Ending:
    if exit_record.get("stop") == "supervisor":
        return Ending(TrialState.FAILED, "infra", "the job's supervisor died before the job was over")
    if exit_record.get("error"):
        return Ending(TrialState.FAILED, "infra", one_line(str(exit_record["error"])))
    if exit_record.get("stop"):
        return Ending(TrialState.FAILED, "preempted", "stopped in the middle: its supervisor was sent SIGTERM")
    log = _log(job, exit_record)
    tail = _tail(log)
    for sign, kind in _SIGNS:
        found = sign.search(tail)
        if found:
            start = tail.rfind("\n", 0, found.start()) + 1
            return Ending(TrialState.FAILED, kind, one_line(tail[start:].split("\n", 1)[0]))
    code = exit_record.get("code")
    number = -code if isinstance(code, int) and code < 0 else None
    in_log = _RANK_SIGNAL.search(tail)
    if number is None and in_log:
        number = int(in_log.group(1) or in_log.group(2))
    if number is not None:
        return Ending(TrialState.FAILED, "infra", f"killed by {_signal_name(number)}; last line: {last_line(log)}")
    if code == 0:
        problem = "is not valid" if trial.result.exists() else "was not written"
        return Ending(
            TrialState.FAILED, "infra", f"the trainer ended with exit code 0, but {trial.result.name} {problem}"
        )
    if _TRACEBACK.search(tail):
        return Ending(TrialState.FAILED, "user_error", last_line(log))
    return Ending(TrialState.FAILED, "infra", f"exit code {code}; last line: {last_line(log)}")


def _log(job: JobLayout, exit_record: Mapping[str, Any]) -> Path:
    """The log of the node on which a job first went wrong."""
    return job.root / str(exit_record.get("log", job.log.name))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _read(model: type[_Model], path: Path) -> _Model | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""

"""Determine how a trial ended from what its job left on disk: result, failure records, exit record and log.

The most specific source is used: a valid result; a limit or a stopping rule that ended the job; the trial's failure
record, then the job's; the log; the exit code. Anything else is `infra`, a kind that is retried by default.
"""

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from pgray.store.exit_record import ExitRecord, StopReason
from pgray.store.process_records import read_record
from trainer.errors import FailureKind
from trainer.records.failures import known_failure
from trainer.records.files import read_json, read_model
from trainer.records.layout import JobLayout, TrialLayout
from trainer.records.logs import read_tail, without_torchrun_report
from trainer.records.results import JobFailure, TrialResult
from trainer.records.states import TrialState

_TRACEBACK = re.compile(r"^(?:\[rank\d+\]:\s*)?Traceback \(most recent call last\)", re.M)
_RANK_EXIT = re.compile(r"^\s+exitcode\s*:\s*(-?\d+)", re.M)  # in torchrun's summary, whose last rank failed first
_NOISE = re.compile(r"^[\s=\-*.^~]*$|^\s+File ")  # rulers and stack frames


@dataclass(frozen=True)
class Ending:
    """How a trial ended. State `queued`: it was only interrupted and runs again; `killed`: a stopping rule ended it."""

    state: TrialState
    kind: FailureKind | None = None
    reason: str | None = None


def trial_ending(trial: TrialLayout, job: JobLayout, is_stopping: bool, worker_error: str | None = None) -> Ending:
    """Return how one trial of an ended job ended.

    Args:
        is_stopping: the driver is stopping its jobs, so a stopped job has not failed.
        worker_error: Ray's error message if the job's worker died.
    """
    if read_result(trial) is not None:
        return Ending(TrialState.FINISHED)
    record = read_record(ExitRecord, job.exit)  # None if the supervisor did not get to write it
    log = job.root / (record.log if record else job.log.name)  # of the node that failed first
    if record is not None and record.stop in (StopReason.TIMEOUT, StopReason.STALL, StopReason.KILLED):
        return _from_stop(record, job, log, worker_error)
    if is_stopping and (record is None or record.stop):
        return Ending(TrialState.QUEUED, None, "interrupted before it ended")
    for path in (trial.failure, job.failure):
        failure = read_model(JobFailure, path)
        if failure is not None:
            return _failed(failure.kind, failure.reason)
    if record is None:
        return _worker_died(worker_error)
    if record.stop:
        return _from_stop(record, job, log, worker_error)
    return _failed("infra", record.error) if record.error else _from_log_and_code(trial, log, record.code)


def read_result(trial: TrialLayout) -> TrialResult | None:
    """Return the trial's result if it is there, valid, and belongs to this trial."""
    result = read_model(TrialResult, trial.result)
    return result if result is not None and result.trial_id == trial.root.name else None


def last_lines(log: Path, count: int = 1) -> str:
    """Return the last informative lines that a job printed, for a reason."""
    printed = without_torchrun_report(read_tail(log)).splitlines()
    lines = [_one_line(line) for line in printed if not _NOISE.search(line)]
    return " | ".join(lines[-count:]) or "the log is empty"


def _failed(kind: FailureKind, reason: str) -> Ending:
    return Ending(TrialState.FAILED, kind, _one_line(reason))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]


def _worker_died(error: str | None) -> Ending:
    """Ray ends a worker when memory runs out or its node is taken away, and its error message says so."""
    kind: FailureKind = "infra"
    if error and re.search(r"OutOfMemory|running low on memory", error):
        kind = "oom"
    elif error and "preempted" in error:
        kind = "preempted"
    return _failed(kind, "the job's Ray worker died" + (f": {error}" if error else ""))


def _from_stop(record: ExitRecord, job: JobLayout, log: Path, worker_error: str | None) -> Ending:
    try:
        stop = StopReason(record.stop or "")
    except ValueError:  # a newer version wrote the record
        return _failed("infra", f"stopped for a reason that this version of pgray does not know: {record.stop}")
    match stop:
        case StopReason.TIMEOUT:
            return _failed("timeout", f"ran longer than {record.timeout_s:.0f} s; last line: {last_lines(log)}")
        case StopReason.STALL:
            return _failed("timeout", f"printed nothing for {record.stall_s:.0f} s; last lines: {last_lines(log, 3)}")
        case StopReason.KILLED:
            reason = str(read_json(job.kill).get("reason", "killed by a rule"))
            return Ending(TrialState.KILLED, None, _one_line(reason))
        case StopReason.SIGTERM:
            return _failed("preempted", "the job's supervisor received SIGTERM")
        case StopReason.LIFELINE:
            return _worker_died(worker_error)
        case StopReason.SUPERVISOR:
            return _failed("infra", "the job's supervisor died")
        case StopReason.PEER:
            return _failed("preempted", "another node of the job failed")
        case StopReason.LOST:
            return _failed("infra", record.error or "a node of the job was lost")
        case StopReason.REPLACED:
            return _failed("preempted", "another driver took over the run before the job started")
        case _:
            assert_never(stop)


def _from_log_and_code(trial: TrialLayout, log: Path, code: int | None) -> Ending:
    tail = read_tail(log)
    if known := known_failure(tail):
        return _failed(*known)
    exits = [code or 0, *map(int, _RANK_EXIT.findall(tail)[-1:])]
    if number := next((-number for number in exits if number < 0), None):
        return _failed("infra", f"killed by {_signal_name(number)}; last line: {last_lines(log)}")
    if code == 0:
        problem = "is not valid" if trial.result.exists() else "was not written"
        return _failed("infra", f"the trainer ended with exit code 0, but {trial.result.name} {problem}")
    if _TRACEBACK.search(without_torchrun_report(tail)):
        return _failed("user_error", last_lines(log))
    return _failed("infra", f"exit code {code}; last line: {last_lines(log)}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

"""Decides whether a job must train and export, or finds intact results on disk. The plan, the queue and the trainer ask here.

Files on disk are not trusted: a record names the sha256 of every file of weights and of the artifact, and its own; weights
name their training run. A file that is no longer the one that was written is never used.
"""

import json
import struct
from collections.abc import Iterable
from pathlib import Path

from trainer.config import Config
from trainer.records.files import changed_problem, file_problem, read_model
from trainer.records.fingerprint import LAST_WEIGHTS, average_key
from trainer.records.layout import TrainedLayout, TrialLayout
from trainer.records.results import TrainingRecord, TrialResult

_ORIGIN = "training run and average"
_MOST_HEADER_BYTES = 100_000_000  # the limit of safetensors itself


def find_training(folder: TrainedLayout, configs: Iterable[Config]) -> tuple[TrainingRecord | None, str | None]:
    """Look for a finished training run whose weights are enough to export these trials.

    Args:
        folder: `RUN/trained/<train_fingerprint>`.
        configs: of the trials that a job exports.
    Returns:
        Its record, and None. Otherwise None: the job must train. Then the second value says what is damaged; None if
        nothing is: there was no training run, or it did not keep an average that one of the trials exports.
    """
    record = read_model(TrainingRecord, folder.record)
    name = f"trained/{folder.root.name}/{folder.record.name}"
    if record is None:
        return None, f"{name} cannot be read" if folder.record.is_file() else None
    if record.train_fingerprint != folder.root.name:
        return None, f"{name} is that of {record.train_fingerprint}"
    if changed := changed_problem(folder.record):
        return None, changed
    hashes = {average.key: average.sha256 for average in record.averages}
    wanted = {LAST_WEIGHTS, *map(average_key, configs)}
    if not wanted <= hashes.keys():
        return None, None
    problems = (_weights_problem(folder, key, hashes[key]) for key in sorted(wanted))
    problem = next(filter(None, problems), None)
    return (None, problem) if problem else (record, None)


def usable_training(folder: TrainedLayout, configs: Iterable[Config]) -> TrainingRecord | None:
    """Return the record that `find_training` finds; None if the job must train."""
    return find_training(folder, configs)[0]


def usable_result(folder: TrialLayout) -> TrialResult | None:
    """Return a trial's result if it is that trial's and unchanged, and its artifact is still the one that was measured."""
    result = read_model(TrialResult, folder.result)
    if result is None or result.trial_id != folder.root.name or changed_problem(folder.result):
        return None
    return None if file_problem(folder.artifact, result.artifact_sha256, result.model_bytes) else result


def weights_origin(train_fingerprint: str, key: str) -> dict[str, str]:
    """Return the metadata of a file of weights: the training run and the average that it holds."""
    return {_ORIGIN: f"{train_fingerprint}/{key}"}


def _weights_problem(folder: TrainedLayout, key: str, sha256: str | None) -> str | None:
    """Return what is wrong with a file of weights, in words; None if nothing is."""
    path = folder.weights(key)
    if problem := file_problem(path, sha256):
        return problem
    origin = _read_origin(path)
    if origin in (None, f"{folder.root.name}/{key}"):
        return None
    return f"trained/{folder.root.name}/{path.name} is that of {origin}"


def _read_origin(path: Path) -> str | None:
    """Return the origin that a safetensors file names; None without one, as in files of earlier versions."""
    try:
        with path.open("rb") as file:
            (num_bytes,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(num_bytes, _MOST_HEADER_BYTES)))
        origin: str | None = header["__metadata__"][_ORIGIN]
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None
    return origin

"""Decides whether a job must train or finds its trained weights on disk. The plan, the queue and the trainer all ask here."""

from collections.abc import Iterable

from trainer.config import Config
from trainer.records.files import read_model
from trainer.records.fingerprint import LAST_WEIGHTS, average_key
from trainer.records.layout import TrainedLayout
from trainer.records.results import TrainingRecord


def usable_training(folder: TrainedLayout, configs: Iterable[Config]) -> TrainingRecord | None:
    """Return the record of a finished training run whose weights are enough to export these trials.

    Args:
        folder: `RUN/trained/<train_fingerprint>`.
        configs: of the trials that a job exports.
    Returns:
        None if the job must train: there is no readable record, or the run did not keep the last weights or an average
        that one of the trials exports.
    """
    record = read_model(TrainingRecord, folder.record)
    if record is None:
        return None
    kept = {average.key for average in record.averages if folder.weights(average.key).is_file()}
    return record if {LAST_WEIGHTS, *map(average_key, configs)} <= kept else None

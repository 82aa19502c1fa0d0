"""Fills in what results before schema version 3 lack, from the trial's config and its training record."""

from contextlib import suppress

from results.schema import Row
from trainer.records.files import read_json, read_model
from trainer.records.layout import RunLayout
from trainer.records.results import TrainingRecord


def fill_older(layout: RunLayout, row: Row) -> Row:
    """Return the row with its `train_limit_s`, `initial_share` and `never_began`, as far as the run folder holds them."""
    found: Row = {}
    if row["train_limit_s"] is None:
        train = read_json(layout.trial(row["trial_id"]).config).get("train")
        limit_s = train.get("wallclock_s") if isinstance(train, dict) else None
        found["train_limit_s"] = limit_s if isinstance(limit_s, (int, float)) else None
    if row["never_began"] is None and (
        record := read_model(TrainingRecord, layout.trained(row["train_fingerprint"]).record)
    ):
        with suppress(StopIteration):
            average = record.average(row["average"])
            found |= {"initial_share": average.initial_share, "never_began": average.never_began}
    return row | found

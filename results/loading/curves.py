"""Reads the event logs of training runs into one DataFrame: `curves`."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from results.loading.runs import current, load
from results.schema import Dtype, Row, records, typed_frame
from trainer.records.events import Event, read_events, surviving_events
from trainer.records.layout import RunLayout
from trainer.records.states import TrialState

_FIELDS = {  # event -> field of the log -> column
    "step": {"train_s": "train_s", "lr_scale": "lr_scale", "train_loss_nats": "train_loss_nats"},
    "val": {"train_s": "train_s", "raw_bpb": "val_bpb", "val_loss_nats": "val_loss_nats"},
    "gate": {"train_s": "train_s", "lr_scale": "lr_scale"},
}
_DTYPES: dict[str, Dtype] = {
    "arm": "string", "seed": "Int64", "trial_id": "string", "train_fingerprint": "string", "step": "Int64",
    "train_s": "Float64", "lr_scale": "Float64", "train_loss_nats": "Float64", "val_bpb": "Float64",
    "val_loss_nats": "Float64", "event": "string",
}  # fmt: skip


def curves(runs: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Return what the current trials of one or several run folders logged while training.

    Args:
        runs: as in `results.load`.
    Returns:
        A row for every step at which a trial's training run logged something, in order: arm, seed, trial_id,
        train_fingerprint, step (optimizer steps taken), train_s (training clock), lr_scale (multiplier of the learning
        rate), train_loss_nats (of that step's tokens), val_bpb and val_loss_nats (of the raw weights, every
        `train.val_every` steps), event (`qat_on`, `recurrence_on`, `end`; joined by `+`, else null). A finished trial's
        last row is its last step, event `end`, with val_bpb from its record. Trials that share a training run repeat its
        rows. Imported trials have no rows.
    Raises:
        InputError: no run folder there.
    """
    rows: list[Row] = []
    for folder in load(runs).attrs["runs"]:
        layout = RunLayout(Path(folder))
        for trial in records(current(load(folder))):
            rows += _trial_rows(layout, trial) if trial["train_fingerprint"] else []
    return typed_frame(rows, _DTYPES)


def _trial_rows(layout: RunLayout, trial: Row) -> list[Row]:
    log = layout.trained(trial["train_fingerprint"]).events
    if not log.is_file():  # the folder of the weights may have been deleted; the trial's folder keeps a copy of the log
        log = layout.trial(trial["trial_id"]).events
    steps = _steps(read_events(log))
    if trial["status"] == TrialState.FINISHED and trial["steps"] is not None:
        end = {"train_s": trial["train_s"], "val_bpb": trial["raw_bpb"]}
        _add(steps, trial["steps"], {name: value for name, value in end.items() if value is not None}, "end")
    identity = {name: trial[name] for name in ("arm", "seed", "trial_id", "train_fingerprint")}
    return [identity | {"step": step} | values for step, values in sorted(steps.items())]


def _steps(events: Iterable[Event]) -> dict[int, Row]:
    """Return step -> what was logged there, of the steps that the final weights went through."""
    steps: dict[int, Row] = {}
    for event in surviving_events(events):
        name, step = event.get("event"), event.get("step")
        if name in _FIELDS and isinstance(step, int):
            found = {column: event.get(field) for field, column in _FIELDS[name].items()}
            numbers = {column: float(x) for column, x in found.items() if isinstance(x, (int, float))}
            _add(steps, step, numbers, f"{event.get('gate')}_on" if name == "gate" else None)
    return steps


def _add(steps: dict[int, Row], step: int, values: Row, event: str | None) -> None:
    row = steps.setdefault(step, {})
    row.update(values)
    if event:
        row["event"] = "+".join(filter(None, [row.get("event"), event]))

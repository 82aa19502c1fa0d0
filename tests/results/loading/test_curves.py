"""Curves as training left them: restarts, resumed runs, shared training runs, gates, broken lines."""

import json
from pathlib import Path
from typing import Any

import pytest

import results
from tests.results.synthetic import Run
from trainer.errors import InputError
from trainer.records.events import EventLog


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "bits")


def log(run: Run, fingerprint: str) -> EventLog:
    events = EventLog(run.layout.trained(fingerprint).events)
    events.write("training", train_fingerprint=fingerprint, seed=42, world_size=1)
    return events


def step(events: EventLog, number: int, loss: float = 4.0) -> None:
    fields = {"train_s": number / 10, "progress": number / 300, "lr_scale": 1 - number / 300}
    events.write("step", step=number, steps=300, train_loss_nats=loss, **fields)


def val(events: EventLog, number: int, bpb: float) -> None:
    events.write("val", step=number, train_s=number / 10, raw_bpb=bpb, val_loss_nats=bpb * 1.66)


def points(run: Run) -> dict[int, dict[str, Any]]:
    table = results.curves(run.layout.root)
    return {row["step"]: row.dropna().to_dict() for _, row in table.iterrows()}


def test_a_row_for_every_step_that_was_logged(run: Run) -> None:
    events = log(run, "fp42")
    for number in (100, 200):
        step(events, number)
    val(events, 200, 2.7)
    events.write("gate", gate="qat", step=231, train_s=23.1, lr_scale=0.2, is_live=True, coverage=1.0, note="")
    step(events, 300)
    run.finish("int8", 42, raw_bpb=2.6)
    table = results.curves(run.layout.root)
    assert list(table.columns) == [
        "arm", "seed", "trial_id", "train_fingerprint", "step", "train_s", "lr_scale", "train_loss_nats", "val_bpb",
        "val_loss_nats", "event",
    ]  # fmt: skip
    assert table["step"].tolist() == [100, 200, 231, 300]
    assert table["val_bpb"].isna().tolist() == [True, False, True, False]
    assert table["val_bpb"].tolist()[-1] == 2.6
    assert table["event"].fillna("").tolist() == ["", "", "qat_on", "end"]
    assert table["train_s"].tolist()[-1] == 50.0  # of the record
    assert table["train_loss_nats"].isna().tolist() == [False, False, True, False]


def test_trials_that_share_a_training_run_repeat_its_curve(run: Run) -> None:
    step(log(run, "fp42"), 100)
    run.finish("int8", 42)
    run.finish("int6", 42)
    table = results.curves(run.layout.root)
    assert table.groupby("arm")["step"].apply(list).to_dict() == {"int8": [100, 300], "int6": [100, 300]}


def test_events_before_a_restart_do_not_count(run: Run) -> None:
    events = log(run, "fp42")
    step(events, 100, 9.0)
    step(events, 200, 9.0)
    step(log(run, "fp42"), 50, 4.0)
    run.entry("int8", 42, "running")
    assert list(points(run)) == [50]


def test_a_resumed_run_keeps_the_events_before_its_checkpoint(run: Run) -> None:
    events = log(run, "fp42")
    for number in (100, 200, 250):
        step(events, number, 9.0)
    events = log(run, "fp42")
    events.write("resumed", step=200, train_s=20.0)
    step(events, 250, 4.0)
    run.entry("int8", 42, "running")
    assert {number: row["train_loss_nats"] for number, row in points(run).items()} == {100: 9.0, 200: 9.0, 250: 4.0}


def test_a_trials_own_copy_stands_in_for_a_lost_log(run: Run) -> None:
    trial = run.finish("int8", 42)
    step(EventLog(run.layout.trial(trial).events), 100)
    assert list(points(run)) == [100, 300]


def test_broken_lines_are_skipped(run: Run) -> None:
    step(log(run, "fp42"), 100)
    with run.layout.trained("fp42").events.open("a") as file:
        for line in ("[1, 2]", '"x"', "{", json.dumps({"event": "val", "step": "7"}), json.dumps({"event": "step"})):
            file.write(line + "\n")
        file.write(json.dumps({"event": "val", "step": 200, "train_s": 1, "raw_bpb": "2.5"}) + "\n")
    run.entry("int8", 42, "running")
    table = results.curves(run.layout.root)
    assert table["step"].tolist() == [100, 200]
    assert table["val_bpb"].isna().all()


def test_several_runs_and_none(run: Run, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    for each in (run, other):
        step(log(each, "fp42"), 100)
        each.entry("int8", 42, "running")
    assert len(results.curves([run.layout.root, other.layout.root])) == 2
    assert len(results.curves(Run(tmp_path / "empty").layout.root)) == 0
    with pytest.raises(InputError):
        results.curves(tmp_path / "missing")

"""Event logs: following one while it is written, and which events count after a restart."""

import json
from pathlib import Path

from trainer.records.events import Event, EventFollower, EventLog, read_events, surviving_events


def step(number: int) -> Event:
    return {"event": "step", "step": number}


def test_a_follower_returns_what_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = EventFollower(path)
    assert follower.poll() == []
    log = EventLog(path)
    log.write("step", step=1)
    late = EventFollower(path, skips_existing=True)
    log.write("step", step=2)
    assert [event["step"] for event in follower.poll()] == [1, 2]
    assert [event["step"] for event in late.poll()] == [2]
    with path.open("a") as file:
        file.write('[1]\n{cut\n{"event": "step", ')
    assert follower.poll() == []
    with path.open("a") as file:
        file.write('"step": 3}\n')
    assert [event["step"] for event in follower.poll()] == [3]
    assert follower.events == read_events(path)
    path.write_text(json.dumps(step(9)) + "\n")
    assert follower.poll() == follower.events == [step(9)]


def test_a_restart_abandons_earlier_events_and_a_resume_keeps_those_before_its_checkpoint() -> None:
    training, resumed = {"event": "training"}, {"event": "resumed", "step": 2}
    first = [training, step(1), step(2), step(3)]
    assert surviving_events(first) == first
    assert surviving_events([*first, training, step(1)]) == [training, step(1)]
    assert surviving_events([*first, training, resumed, step(3)]) == [step(1), step(2), resumed, step(3)]

"""The event log of a training run or a trial: JSON lines, appended while it runs. Writes, reads and follows it."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainer.records.files import naming

Event = dict[str, Any]
"""One line: `event` (its name), `at` (Unix time, seconds), and fields that depend on the name, such as `step`."""


class EventLog:
    """Appends JSON lines with an `event` field and a wall time to a file, and prints them.

    Args:
        path: the file; None (ranks other than 0): write and print nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, event: str, **fields: Any) -> None:
        if self.path is None:
            return
        line = json.dumps({"event": event, "at": round(time.time(), 3), **fields}, allow_nan=False)
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        shown = " ".join(f"{key}={_short(value)}" for key, value in fields.items() if value is not None)
        print(f"{event} {shown}", flush=True)


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def read_events(path: Path) -> list[Event]:
    """Return all whole events of a log; a line cut off by a kill is left out. [] if there is no file."""
    return _parse(path.read_bytes().splitlines()) if path.is_file() else []


class EventFollower:
    """Reads an event log while it is being written.

    Args:
        path: need not exist yet.
        skips_existing: start after what the log holds now.
    """

    def __init__(self, path: Path, *, skips_existing: bool = False) -> None:
        self._path = path
        self._offset = path.stat().st_size if skips_existing and path.exists() else 0
        self.events: list[Event] = []  # all that have been read

    def poll(self) -> list[Event]:
        """Read and return the events appended since the last call. A line that is still being written has to wait."""
        try:
            if self._path.stat().st_size < self._offset:  # another, shorter file has replaced it
                self._offset, self.events = 0, []
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        new = _parse(whole.split(b"\n"))
        self.events += new
        return new


def surviving_events(events: Iterable[Event]) -> list[Event]:
    """Return the events of the steps that the weights went through.

    A training run that starts again (`training`) abandons all earlier events. One that resumes from a checkpoint
    (`resumed`, with its step) keeps those up to that step.
    """
    abandoned: list[Event] = []
    kept: list[Event] = []
    for event in events:
        name, step = event.get("event"), event.get("step")
        if name == "training":
            abandoned, kept = kept, []
        elif name == "resumed" and isinstance(step, int):
            kept = [e for e in abandoned if isinstance(at := e.get("step"), (int, float)) and at <= step]
        kept.append(event)
    return kept


def _parse(lines: Iterable[bytes]) -> list[Event]:
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events

"""The event log of a training run or a trial: JSON lines, appended while it runs."""

import json
import time
from pathlib import Path
from typing import Any


class EventLog:
    """Append-only JSON lines with an `event` field and a wall time, flushed line by line, and echoed for people.

    Args:
        path: where to; None (ranks other than 0) writes and prints nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, event: str, **fields: Any) -> None:
        if self.path is None:
            return
        line = json.dumps({"event": event, "at": round(time.time(), 3), **fields}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        shown = " ".join(f"{key}={_short(value)}" for key, value in fields.items() if value is not None)
        print(f"{event} {shown}", flush=True)


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole lines of an event log; a line cut off by a kill is left out. [] where there is no file."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events

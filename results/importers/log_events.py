"""Splits a log into runs and its lines into events; `results/importers/log.py` interprets them.

The scripts append to their log and begin with a dump of their own source, a ruler, the environment, and a second ruler.
So a file may hold several runs, and the source (docstrings with old results, f-strings that look like log lines) must not
be read as values. Captured standard output has neither dump nor rulers.
"""

import hashlib
from dataclasses import dataclass, field

from results.importers.imported_run import Value
from results.importers.log_patterns import HEADER, PATTERNS, RULER, RUN_MARKS, SOURCE_BEGINS

_MAX_LINE = 1000  # log lines are shorter; lines of source or data may be longer
_TRAINED = ("train", "val", "stop", "score")
_ENVIRONMENT = ("python", "torch", "gpu")


@dataclass(frozen=True)
class Event:
    kind: str
    line: int
    values: dict[str, Value]

    def __getitem__(self, name: str) -> Value:
        return self.values[name]


@dataclass
class LogRun:
    """Events of one run in the order of their lines."""

    file: str
    events: list[Event] = field(default_factory=list)
    digest: str = ""
    last_line: int = 0

    def last(self, kind: str) -> Event | None:
        return next((event for event in reversed(self.events) if event.kind == kind), None)

    def all(self, *kinds: str) -> list[Event]:
        return [event for event in self.events if event.kind in kinds]


def split_runs(file: str, text: str) -> list[LogRun]:
    """Return the runs of the train_gpt.py family in the text of a log."""
    lines = text.split("\n")  # not splitlines: line numbers must be those of an editor
    runs = [LogRun(file)]
    in_source = False
    for number, line in enumerate(map(str.rstrip, lines), start=1):
        if line == RULER:
            in_source = False
        elif SOURCE_BEGINS.match(line):
            if not in_source and runs[-1].events:
                runs.append(LogRun(file))
            in_source = True
        elif len(line) <= _MAX_LINE and (event := _event(line, number)):
            if in_source and event.kind not in HEADER:
                continue
            in_source = False
            if _begins_run(event, runs[-1]):
                runs.append(LogRun(file))
            runs[-1].events.append(event)
    found = [run for run in runs if any(event.kind in RUN_MARKS for event in run.events)]
    for run in found:
        run.last_line = run.events[-1].line
        own = "\n".join(lines[run.events[0].line - 1 : run.last_line])
        run.digest = hashlib.sha256(own.encode()).hexdigest()
    return found


def _begins_run(event: Event, run: LogRun) -> bool:
    """Return whether this line starts another run: it belongs to the head of a log, and the run is past its head."""
    match event.kind:
        case "python":
            return bool(run.events)
        case "tokenizer":
            return any(before.kind not in _ENVIRONMENT for before in run.events)
        case "seed" | "params":
            return any(before.kind in _TRAINED for before in run.events)
        case "warmup":
            return event["step"] == 1 and any(before.kind in ("warmup", *_TRAINED) for before in run.events)
        case "val":
            return event["step"] == 0 and any(before.kind in _TRAINED for before in run.events)
    return False


def _event(line: str, number: int) -> Event | None:
    """Parse a line; of a line that a progress bar overwrote (carriage returns), the last part."""
    text = line.rpartition("\r")[2]
    for kind, pattern in PATTERNS:
        if found := pattern.fullmatch(text):
            return Event(kind, number, {k: _value(v) for k, v in found.groupdict().items() if v is not None})
    return None


def _value(text: str) -> Value:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text

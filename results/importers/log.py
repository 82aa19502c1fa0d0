"""A log file -> its runs, each a list of events: which line says what, before anyone decides what it means.

The scripts open their log in append mode and begin with a dump of their own source, a ruler, the environment, and a
second ruler. So a file may hold several runs, and the source in it (docstrings with old results, f-strings that look
like lines of a log) must not be read as values. Captured standard output has neither dump nor rulers.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from results.importers.patterns import HEADER, PATTERNS, RULER, RUN_MARKS, SOURCE_BEGINS
from results.importers.record import Value, read_text
from trainer.errors import InputError

_MAX_LINE = 1000  # no line of a log is longer; source and data are
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
    last_line: int = 0  # of the text that belongs to the run

    def last(self, kind: str) -> Event | None:
        return next((event for event in reversed(self.events) if event.kind == kind), None)

    def all(self, *kinds: str) -> list[Event]:
        return [event for event in self.events if event.kind in kinds]


def read_file(path: Path) -> list[LogRun]:
    """The runs of one log file.

    Raises:
        InputError: it cannot be read, or no run of the train_gpt.py family is in it.
    """
    lines = read_text(path).split("\n")  # not splitlines: line numbers must be those of an editor
    runs = _split(str(path), lines)
    if not runs:
        fix = "no run of the train_gpt.py family is in it; give the log that the script wrote"
        raise InputError(str(path), "log", f"{len(lines)} lines", fix)
    return runs


def _split(file: str, lines: list[str]) -> list[LogRun]:
    runs = [LogRun(file)]
    in_source = False
    for number, text in enumerate(lines, start=1):
        line = text.rstrip()
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
        text = "\n".join(lines[run.events[0].line - 1 : run.last_line])
        run.digest = hashlib.sha256(text.encode()).hexdigest()
    return found


def _begins_run(event: Event, run: LogRun) -> bool:
    """Whether this line cannot belong to the run so far: what stands at the head of a log comes once more."""
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
    """What a line says; the last part of a line that a progress bar has overwritten with carriage returns."""
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

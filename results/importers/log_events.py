"""Splits a log into runs and its lines into events; `results/importers/log.py` interprets them.

The scripts append to their log and begin with a dump of their own source, a ruler, the environment, and a second ruler.
So a file may hold several runs, and the source (docstrings with old results, f-strings that look like log lines) must not
be read as values. Captured standard output has neither dump nor rulers.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from results.importers.imported_run import Value
from results.importers.log_patterns import (
    HEADER_PATTERNS,
    INLINE,
    MIXES_A_MODEL,
    PATTERNS,
    PREFIX,
    RULER,
    RUN_MARKS,
    SETTING,
    SOURCE_BEGINS,
    SOURCE_ENDS,
    SOURCE_LINE,
    SWITCHED_OFF,
    TUNED_ON_VALIDATION,
    TUNES_AS_IT_SCORES,
    WINDOW,
)

_MAX_LINE = 1000  # log lines are shorter; lines of source or data may be longer
_SOURCE_WINDOW, _MIN_SOURCE_LINES = 40, 3
_TRAINED = ("train", "val", "stop", "score")
_SETTINGS = ("seed_named", "world_named", "averages", "window")  # a list of settings may come before the environment
_OF_EVALUATION = ("tuned", "tunes", "mixes")
_ENVIRONMENT = (*_SETTINGS, "python", "torch", "gpu")
_STEP_FIELD = re.compile(r"(?<![\w.])([a-z_]+): ?([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf)(ms)?(?![\w.])", re.A)
_STEP_NAMES = {
    # the names in the line -> value; the unit of a time must be ms
    "bpb": ("val_bpb", "bpb"),
    "loss": ("val_loss", "vl", "train_loss", "loss", "tl"),
    "train_ms": ("train_time", "tt", "time", "t"),
    "step_ms": ("step_avg", "avg", "sa"),
}


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

    def last(self, *kinds: str) -> Event | None:
        return next((event for event in reversed(self.events) if event.kind in kinds), None)

    def all(self, *kinds: str) -> list[Event]:
        return [event for event in self.events if event.kind in kinds]

    def cut_settings(self) -> list[Event]:
        """Remove and return the settings after the last other line: they are the head of the run that follows."""
        end = max((event.line for event in self.events if event.kind not in _SETTINGS), default=0)
        settings = [event for event in self.events if event.line > end]
        self.events = [event for event in self.events if event.line <= end]
        return settings


def split_runs(file: str, text: str) -> list[LogRun]:
    """Return the runs of the train_gpt.py family in the text of a log."""
    lines = text.split("\n")  # not splitlines: line numbers must be those of an editor
    runs = [LogRun(file)]
    is_trained = False
    for number, line in _log_lines(lines):
        if line is None and any(event.kind not in _SETTINGS for event in runs[-1].events):
            runs.append(LogRun(file))
            is_trained = False
        for event in _events(line, number, is_trained) if line else ():
            if _begins_run(event, runs[-1]):
                runs.append(LogRun(file, runs[-1].cut_settings()))
                is_trained = False
            if event.kind in ("train", "val") and not is_trained:  # what the head says of evaluations are settings
                is_trained = True
                runs[-1].events = [before for before in runs[-1].events if before.kind not in _OF_EVALUATION]
            runs[-1].events.append(event)
    found = [run for run in runs if any(event.kind in RUN_MARKS for event in run.events)]
    for run in found:
        run.last_line = run.events[-1].line
        own = "\n".join(lines[run.events[0].line - 1 : run.last_line])
        run.digest = hashlib.sha256(own.encode()).hexdigest()
    return found


def _log_lines(lines: list[str]) -> Iterator[tuple[int, str | None]]:
    """Yield the lines outside source dumps with their numbers, and None where a dump begins."""
    in_source = in_last_block = False
    for number, line in enumerate(map(str.rstrip, lines), start=1):
        if RULER.fullmatch(line):
            in_source = False
        elif not in_source and SOURCE_BEGINS.match(line) and _is_source(lines[number : number + _SOURCE_WINDOW]):
            in_source, in_last_block = True, False
            yield number, None
        elif in_source and SOURCE_ENDS.match(line):
            in_last_block = True
        elif len(line) <= _MAX_LINE and line:
            has_ended = in_last_block and not line[0].isspace() and line[0] != "#"
            in_source = in_source and not has_ended and not _is_header(line)
            if not in_source:
                yield number, line


def _is_source(following: list[str]) -> bool:
    """Return whether these lines are a script's: a log may hold a single line that begins with `import`."""
    return sum(bool(SOURCE_LINE.match(line[:_MAX_LINE])) for line in following) >= _MIN_SOURCE_LINES


def _is_header(line: str) -> bool:
    return any(pattern.fullmatch(line) for pattern in HEADER_PATTERNS)


def _begins_run(event: Event, run: LogRun) -> bool:
    """Return whether this line starts another run: it belongs to the head of a log, and the run is past its head."""
    match event.kind:
        case "python":
            return any(before.kind not in _SETTINGS for before in run.events)
        case "tokenizer":
            return any(before.kind not in _ENVIRONMENT for before in run.events)
        case "seed" | "params":
            return any(before.kind in _TRAINED for before in run.events)
        case "warmup":
            return event["step"] == 1 and any(before.kind in ("warmup", *_TRAINED) for before in run.events)
        case "val":
            first = next((before for before in run.events if before.kind in _TRAINED), None)
            is_repeated = first is not None and first.values == event.values  # a summary at the end repeats it
            return event["step"] == 0 and first is not None and not is_repeated
    return False


def _events(line: str, number: int, is_trained: bool) -> Iterator[Event]:
    """Parse a line; of a line that a progress bar overwrote (carriage returns), the last part."""
    text = PREFIX.sub("", line.rpartition("\r")[2], count=1)
    text = re.sub(r"(?<=\S) {2,}", " ", text)
    main = _main_event(text, number)
    if main:
        yield main
    if WINDOW.search(text):
        yield Event("window", number, {})
    if not is_trained or SETTING.fullmatch(text):  # after training: the settings of a next run
        for kind, pattern in INLINE:
            if (found := pattern.search(text)) and not (main and kind.startswith(main.kind)):
                yield Event(kind, number, _values(found))
    if not main or main.kind not in ("train", "val", "score"):
        yield from _evaluation_events(text, number)


def _main_event(text: str, number: int) -> Event | None:
    for kind, pattern in PATTERNS:
        if found := pattern.fullmatch(text):
            values = _values(found)
            return _step_event(values, number) if kind == "step" else Event(kind, number, values)
    return None


def _step_event(values: dict[str, Value], number: int) -> Event:
    """Return a training step or, if the line has a bpb, a validation; with the values that the line has."""
    found = {name: (value, unit) for name, value, unit in reversed(_STEP_FIELD.findall(str(values["fields"])))}
    parsed: dict[str, Value] = {"step": values["step"], "of": values["of"]}
    for name, spellings in _STEP_NAMES.items():
        value, unit = next((found[s] for s in spellings if s in found), ("", ""))
        is_time = name.endswith("_ms")
        if value and bool(unit) == is_time and not (is_time and value in ("nan", "inf")):
            parsed[name] = _value(value)
    is_validation = "bpb" in parsed and ("val_loss" in found or "vl" in found)
    return Event("val" if is_validation else "train", number, parsed)


def _evaluation_events(text: str, number: int) -> Iterator[Event]:
    """Yield what happens to the model between training and a score."""
    if SETTING.fullmatch(text):
        return
    if "ttt" not in text.lower():
        pass
    elif tuned := TUNED_ON_VALIDATION.fullmatch(text):
        epochs = next(count for count in tuned.groups() if count)
        if int(epochs[:9]):
            yield Event("tuned", number, {"epochs": int(epochs[:9])})
    elif TUNES_AS_IT_SCORES.fullmatch(text):
        yield Event("tunes", number, {})
    if MIXES_A_MODEL.search(text) and not SWITCHED_OFF.search(text):
        yield Event("mixes", number, {})


def _values(found: re.Match[str]) -> dict[str, Value]:
    return {name: _value(text) for name, text in found.groupdict().items() if text is not None}


def _value(text: str) -> Value:
    plain = text.replace(",", "") if re.fullmatch(r"\d{1,3}(?:,\d{3})+", text, re.A) else text
    for number in (int, float):
        try:
            return number(plain)
        except ValueError:
            continue
    return text

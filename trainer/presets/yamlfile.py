"""Parses YAML strictly, for sweeps, presets and jobs: `1e-3` is a number, and a duplicate key is an error.

PyYAML follows YAML 1.1, which reads `1e-3` as text, `030` as 24, `1:30` as 90 and `off` as false, and silently lets a later
duplicate key replace an earlier one. The first is corrected here, the others are refused by name. A file of any size, and a
short one that aliases expand to gigabytes, is refused before it is parsed into objects.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from trainer.errors import InputError
from trainer.section import RuleError

MAX_CHARS = 250_000
"""Size limit of a file that a person writes. Ten thousand arms fit into it."""
_MAX_NODES = 100_000  # keys and values, with every alias written out; 64 characters of a long text count as one more
_CHARS_PER_NODE = 64
_MAX_DEPTH = 50  # the parser in C recurses, and crashes at some ten thousand
_INT_LIMIT = 2**63
_SHOWN_CHARS = 40

# The parser in C is five times as fast, but PyYAML can be installed without it.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Base):  # type: ignore[misc]
    """Raises RuleError for a bad key, and for a value that YAML 1.1 reads in a surprising way."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key, line = loader.construct_object(key_node, deep=True), _line(key_node)
        if not isinstance(key, str):
            raise RuleError(line, str(key), "a name must be text; put it in quotes")
        if key in seen:
            raise RuleError(line, key, "duplicate key; rename or remove one")
        seen.add(key)
    values: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return values


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _surprise(node: yaml.ScalarNode, meaning: str, fix: str) -> RuleError:
    text = node.value if len(node.value) <= _SHOWN_CHARS else f"{node.value[:_SHOWN_CHARS]}..."
    return RuleError(_line(node), text, f"{meaning}; {fix}")


def _bool(loader: _StrictLoader, node: yaml.ScalarNode) -> bool:
    value: bool = loader.construct_yaml_bool(node)
    if node.value.lower() not in ("true", "false"):
        word = str(value).lower()
        raise _surprise(node, f"YAML 1.1 reads this word as {word}", f"write {word}, or '{node.value}' for text")
    return value


def _int(loader: _StrictLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > _SHOWN_CHARS:  # Python refuses to read integers of more than 4,300 digits
        raise _surprise(node, f"a number of {len(node.value)} digits", "give one below 2**63")
    value: int = loader.construct_yaml_int(node)
    digits = node.value.lstrip("+-").replace("_", "")
    if ":" in digits:
        raise _surprise(
            node, f"YAML 1.1 reads this as {value}, a number in base 60", f"write {value}, or '{node.value}' for text"
        )
    if len(digits) > 1 and digits.startswith("0") and digits.isdigit():
        raise _surprise(
            node, f"YAML 1.1 reads this as {value}, an octal number", f"write {value}, or '{node.value}' for text"
        )
    if abs(value) >= _INT_LIMIT:
        raise _surprise(node, "too large for an integer", "give one below 2**63")
    return value


def _float(loader: _StrictLoader, node: yaml.ScalarNode) -> float:
    value: float = loader.construct_yaml_float(node)
    if ":" in node.value:
        raise _surprise(
            node, f"YAML 1.1 reads this as {value}, a number in base 60", f"write {value}, or '{node.value}' for text"
        )
    return value


def _date(loader: _StrictLoader, node: yaml.ScalarNode) -> Any:
    loader.construct_yaml_timestamp(node)  # raises if a tag asks for a date that this is not
    raise _surprise(node, "YAML reads this as a date", f"write '{node.value}' for text")


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
for _tag, _read in (("bool", _bool), ("int", _int), ("float", _float), ("timestamp", _date)):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _read)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str, origin: str, *, is_limited: bool = True) -> Any:
    """Parse one YAML document.

    Args:
        origin: names the text in errors.
        is_limited: refuse more than 100,000 keys and values, aliases written out, and nesting deeper than 50.
    Raises:
        InputError: wrong syntax, a duplicate key, a value that YAML 1.1 reads in a surprising way, or a text over a limit;
            with the line.
    """
    try:
        if is_limited:
            _check_size(text)
        return yaml.load(text, Loader=_StrictLoader)
    except RuleError as error:
        raise InputError(origin, error.key, error.value, error.fix) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        last = max(1, len(text.splitlines()))  # the mark of an unexpected end may be one line further
        where = f"line {min(mark.line + 1, last)}" if mark else "document"
        problem, fix = getattr(error, "problem", None) or "cannot be read", "fix the syntax"
        if mark and mark.buffer is None and text[mark.index : mark.index + 1] == "\t":
            problem, fix = "a tab", "indent with spaces"
        raise InputError(origin, where, str(problem), f"not valid YAML; {fix}") from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # PyYAML raises these for a value that does not fit its tag, such as `!!timestamp x` or `!!bool x`.
        raise InputError(origin, "document", str(error), "a value cannot be read; quote it or fix it") from None


def _check_size(text: str) -> None:
    """Raise RuleError for a text over the limits. Reads the stream of events: no object is made, nothing recurses."""
    if len(text) > MAX_CHARS:
        raise RuleError("document", f"{len(text):,} characters", f"longer than {MAX_CHARS:,}; use grid or search")
    sizes: dict[str | None, int] = {}  # anchor -> number of nodes below it
    open_nodes: list[list[Any]] = [["", 0]]  # anchor and number of nodes of every open collection
    event: Any
    for event in yaml.parse(text, Loader=_StrictLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append([event.anchor, 1])
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            sizes[anchor] = size
            open_nodes[-1][1] += size
        elif isinstance(event, yaml.AliasEvent):
            open_nodes[-1][1] += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor] = 1 + len(event.value) // _CHARS_PER_NODE
            open_nodes[-1][1] += sizes[event.anchor]
        line = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) and any(anchor == event.anchor for anchor, _ in open_nodes):
            raise RuleError(line, f"*{event.anchor}", "an alias inside its own value; write the value out")
        if len(open_nodes) > _MAX_DEPTH:
            raise RuleError(line, "nesting", f"deeper than {_MAX_DEPTH} levels; remove some")
        if open_nodes[-1][1] > _MAX_NODES:
            fix = f"more than {_MAX_NODES:,} keys and values, with aliases written out; write fewer"
            raise RuleError(line, "size", fix)


def read_text(path: Path, max_chars: int = -1) -> str:
    """Return the UTF-8 text of a file. Raises InputError if it is missing, unreadable, or longer than `max_chars`."""
    try:
        with path.open(encoding="utf-8") as file:  # the size of a device or a pipe is not known before it is read
            text = file.read(max_chars if max_chars < 0 else max_chars + 1)
    except FileNotFoundError:
        raise InputError(str(path), "file", "missing", "no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(str(path), "file", "a folder", "give the path of a file") from None
    except OSError as error:
        raise InputError(str(path), "file", error.strerror, "cannot be read; fix that or give another file") from None
    except ValueError as error:  # not UTF-8, or a path with a null byte
        raise InputError(str(path), "file", "not text", f"cannot be read as UTF-8 ({error})") from None
    if 0 <= max_chars < len(text):
        fix = f"longer than {max_chars:,} characters; give a sweep or preset, and use grid or search for many arms"
        raise InputError(str(path), "file", "too long", fix)
    return text


def read_yaml(path: Path, *, is_limited: bool = True) -> Any:
    """Parse the YAML file at `path`. Raises InputError if it is missing, unreadable, too large or not YAML."""
    return parse_yaml(read_text(path, MAX_CHARS if is_limited else -1), str(path), is_limited=is_limited)

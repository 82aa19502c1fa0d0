"""Parses YAML strictly, for sweeps, presets and jobs: `1e-3` is a number, and a duplicate key is an error.

PyYAML follows YAML 1.1, which reads `1e-3` as text and silently lets a later duplicate key replace an earlier one.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from trainer.errors import InputError
from trainer.section import RuleError


class _StrictLoader(yaml.SafeLoader):
    """Raises RuleError for a bad key."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key, line = loader.construct_object(key_node, deep=True), f"line {key_node.start_mark.line + 1}"
        if not isinstance(key, str):
            raise RuleError(line, str(key), "a name must be text; put it in quotes")
        if key in seen:
            raise RuleError(line, key, "duplicate key; rename or remove one")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str, origin: str) -> Any:
    """Parse one YAML document. Raises InputError with `origin` and the line for wrong syntax and duplicate keys."""
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except RuleError as error:
        raise InputError(origin, error.key, error.value, error.fix) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "document"
        problem = getattr(error, "problem", None) or "cannot be read"
        raise InputError(origin, where, str(problem), "not valid YAML; fix the syntax") from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # PyYAML raises these for a value that does not fit its tag, such as `!!timestamp x` or `!!bool x`.
        raise InputError(origin, "document", str(error), "a value cannot be read; quote it or fix it") from None


def read_text(path: Path) -> str:
    """Return the UTF-8 text of a file. Raises InputError if it is missing or unreadable."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(str(path), "file", "missing", "no such file; check the path") from None
    except (OSError, ValueError) as error:  # not UTF-8, or a path with a null byte
        raise InputError(str(path), "file", type(error).__name__, f"cannot be read as UTF-8 text ({error})") from None


def read_yaml(path: Path) -> Any:
    """Parse the YAML file at `path`. Raises InputError if it is missing, unreadable or not YAML."""
    return parse_yaml(read_text(path), str(path))

"""Words that messages share."""

import difflib
from collections.abc import Iterable

_MOST_CHOICES = 20


def count_of(number: float, noun: str) -> str:
    """Return `1 job`, `2 jobs`, `2 processes`, `1,000 tokens`."""
    ending = "" if round(number) == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,.0f} {noun}{ending}"


def kind_of(value: object) -> str:
    """Return what a document is that should be a mapping."""
    kinds = {
        type(None): "empty",
        str: "text",
        list: "a list",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), type(value).__name__)


def nearest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the choice that is spelt most like `word`, None if none is similar."""
    return next(iter(difflib.get_close_matches(word, list(choices), n=1, cutoff=cutoff)), None)


def suggestion(word: str, choices: Iterable[str]) -> str:
    """Return `did you mean X?`, or the choices if none is spelt like `word`."""
    names = list(choices)
    near = nearest(word, names, 0.65)
    more = f" and {len(names) - _MOST_CHOICES} more" if len(names) > _MOST_CHOICES else ""
    return f"did you mean {near}?" if near else f"use one of {', '.join(names[:_MOST_CHOICES])}{more}"

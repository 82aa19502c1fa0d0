"""The samplers of a search: one module per sampler, named after it and found by its file.

To add one, add a module here with `SAMPLER = SearchSampler(...)`.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from pgray.spec.search import Search
from trainer.errors import InputError
from trainer.records.text import suggestion

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class SearchSampler:
    """How to build one of Optuna's samplers, and what it supports. `build`: (search, random seed) -> a new sampler."""

    build: "Callable[[Search, int], BaseSampler]"
    several_objectives: bool = True
    conditional_keys: bool = True
    choices: bool = True
    constraints: bool = True  # otherwise the sampler sees a trial that breaks one as failed
    keeps_state_in_study: bool = False  # in attributes of the trials that it draws: resuming repeats these draws


def sampler_names() -> list[str]:
    """Return the values that `sampler` may have, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_sampler(name: str) -> SearchSampler:
    """Import the sampler `name`, which must be one of `sampler_names()`."""
    return cast(SearchSampler, importlib.import_module(f"{__name__}.{name}").SAMPLER)


def check_sampler(search: Search, origin: str) -> None:
    """Raise InputError if the search's sampler does not exist or does not support the search."""
    name = search.sampler
    if name not in sampler_names():
        raise InputError(origin, "search.sampler", name, f"unknown sampler; {suggestion(name, sampler_names())}")
    choices = [key for key, dimension in search.space.items() if dimension.choice is not None]
    needs = {
        "several_objectives": len(search.objectives or ()) > 1 and "several objectives; make one a constraint",
        "conditional_keys": bool(search.when) and "conditional keys; remove when",
        "choices": bool(choices) and f"choices, and {choices[0]} is one; make it a range",
    }
    for ability, need in needs.items():
        if need and not getattr(load_sampler(name), ability):
            able = ", ".join(other for other in sampler_names() if getattr(load_sampler(other), ability))
            raise InputError(origin, "search.sampler", name, f"does not support {need}, or use one of {able}")

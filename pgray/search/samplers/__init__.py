"""The samplers of a search: one module per sampler, named after it and found by its file.

To add one, add a module with `SAMPLER = SearchSampler(...)`; see `pgray/search/samplers/_base.py`.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, cast

from pgray.search.samplers._base import SearchSampler
from pgray.spec.search import Search
from trainer.errors import InputError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def sampler_names() -> list[str]:
    """Return the values that `sampler` may have, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load_sampler(name: str) -> SearchSampler:
    """Import the sampler `name`, which must be one of `sampler_names()`."""
    return cast(SearchSampler, importlib.import_module(f"{__name__}.{name}").SAMPLER)


def make_sampler(search: Search, seed: int) -> "BaseSampler":
    """Return a new sampler of the kind that the search asks for. `seed`: of its random draws."""
    return load_sampler(search.sampler).build(search, seed)


def check_sampler(search: Search, origin: str) -> None:
    """Raise InputError if the search's sampler does not exist or does not support the search."""
    name = search.sampler
    if name not in sampler_names():
        raise InputError(origin, "search.sampler", name, f"unknown sampler; use one of {', '.join(sampler_names())}")
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

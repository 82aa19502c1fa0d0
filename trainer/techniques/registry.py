"""Finds the techniques: every subclass of `Technique` in a module of this package."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from trainer import techniques
from trainer.config import Config
from trainer.techniques.base import Technique


def technique_classes() -> list[type[Technique]]:
    """Return every technique of this package, in the order in which they are applied."""
    for module in pkgutil.iter_modules(techniques.__path__):
        importlib.import_module(f"{techniques.__name__}.{module.name}")
    return sorted(_leaves(Technique), key=lambda cls: (cls.order, cls.section))


def active_techniques(config: Config) -> list[Technique]:
    """Return the techniques that `config` switches on, in the order in which they are applied."""
    return [cls(config) for cls in technique_classes() if config.weight_techniques[cls.section].is_on]


def _leaves(cls: type[Any]) -> Iterator[type[Technique]]:
    for child in cls.__subclasses__():
        yield from _leaves(child) if child.__subclasses__() else (child,)

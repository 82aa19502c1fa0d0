"""What a module of this package declares about its sampler."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgray.spec.search import Search

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class SearchSampler:
    """How to build one of Optuna's samplers, and what it supports.

    `build`: (search, random seed) -> a new sampler. The three flags after it say which searches the sampler accepts.
    `constraints`: it reads how far a trial is on the wrong side; otherwise a trial that breaks a constraint counts as failed.
    `keeps_state_in_study`: it stores its state in the attributes of the trials that it draws, so that a study made from
    the ledger has to repeat these draws.
    """

    build: "Callable[[Search, int], BaseSampler]"
    several_objectives: bool = True
    conditional_keys: bool = True
    choices: bool = True
    constraints: bool = True
    keeps_state_in_study: bool = False

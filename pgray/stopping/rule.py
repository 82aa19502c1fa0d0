"""The interface of a stopping rule, how rules are found, and the joint verdict of several.

The job queue, the curve monitor and the backtest apply the same list of rules, so that a backtest tests what the scheduler
would do. A new rule is a subclass of `StoppingRule` in a new module of this package; `pgray/spec/stopping.py` has its
section of the sweep file.
"""

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pgray import stopping
from pgray.spec.stopping import StoppingSection
from pgray.stopping.curves import Curve
from trainer.records.results import TrialResult

Section = TypeVar("Section", bound=StoppingSection)
Results = Mapping[str, Mapping[int, TrialResult]]
"""Arm -> seed -> the result of a finished trial."""


class StoppingRule(Generic[Section]):
    """Judges arms, each verdict with its reason in one line. By default a rule judges nothing.

    Args:
        section: configures the rule.
        control: the arm that others are compared with; it is never stopped.
    """

    section_type: type[Section]
    label: ClassVar[str]
    """What a backtest calls a stop by `judge_results`."""

    def __init__(self, section: Section, control: str) -> None:
        self.section, self.control = section, control

    @property
    def reads_curves(self) -> bool:
        """Whether the rule judges running training runs by their curves; else it judges finished trials."""
        return False

    def judge_results(self, results: Results, unfinished_seeds: Collection[int]) -> dict[str, str]:
        """Return the arms that need no further seeds, with the reasons. `unfinished_seeds`: some trial waits or runs."""
        return {}

    def judge_curves(self, arms: Collection[str], curve: Curve, control_curve: Curve) -> dict[str, str]:
        """Return which of the arms that share a training run need it no longer, and why. `control_curve`: of the same seed."""
        return {}

    def held_back_seeds(self, seeds: Sequence[int], unfinished_seeds: Collection[int]) -> set[int]:
        """Return the seeds that must not start yet. `seeds`: all, in the order in which they run."""
        return set()

    def check_arms(self, arms: Sequence[str], origin: str) -> None:
        """Raise InputError if the rule covers none of these arms. `origin` names the run in the error."""

    def why_idle(self, num_seeds: int) -> str | None:
        """Say why the rule cannot stop anything in a run with so few seeds; None if it can."""
        return None


def stopping_rules(sections: Iterable[StoppingSection], control: str) -> list[StoppingRule[Any]]:
    """Return the rules that the sections configure, in their order."""
    for module in pkgutil.iter_modules(stopping.__path__):
        importlib.import_module(f"{stopping.__name__}.{module.name}")
    classes: list[type[StoppingRule[Any]]] = StoppingRule.__subclasses__()
    types = {rule.section_type: rule for rule in classes}
    return [types[type(section)](section, control) for section in sections]


def arms_to_drop(
    rules: Iterable[StoppingRule[Any]], results: Results, unfinished_seeds: Collection[int]
) -> dict[str, tuple[str, str]]:
    """Return the arms that some rule drops -> label and reason of the first such rule."""
    dropped: dict[str, tuple[str, str]] = {}
    for rule in rules:
        for arm, reason in rule.judge_results(results, unfinished_seeds).items():
            dropped.setdefault(arm, (rule.label, reason))
    return dropped


def run_verdict(
    rules: Iterable[StoppingRule[Any]], arms: Sequence[str], curve: Curve, control_curve: Curve
) -> str | None:
    """Say why a training run is to be stopped; None while some arm still needs its weights."""
    judged: dict[str, str] = {}
    for rule in rules:
        judged = rule.judge_curves(arms, curve, control_curve) | judged
    return judged[arms[0]] if arms and judged.keys() >= set(arms) else None

"""The section `search` of a sweep file. `pgray/search/space.py` checks what depends on the configuration."""

import math
import re
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.records.results import METRICS
from trainer.records.text import suggestion
from trainer.section import RuleError, Rules, Section

Direction = Literal["min", "max"]

_MAX_NUMBER = 10**9  # Optuna's densities overflow on much wider ranges of integers


class Dimension(Section):
    """The values of one key: exactly one of these fields. A range includes both of its ends."""

    log_uniform: list[float] | None = None
    uniform: list[float] | None = None
    integers: list[int] | None = Field(None, alias="int")
    choice: list[Any] | None = None

    def rules(self) -> Rules:
        given = {"int" if name == "integers" else name: values for name, values in self if values is not None}
        found = " and ".join(given) or "none"
        yield len(given) != 1, "values", "give exactly one of log_uniform, uniform, int, choice", found
        ((name, values),) = given.items()
        yield from _choice_rules(values) if name == "choice" else _range_rules(name, values)

    @property
    def ends(self) -> list[Any]:
        """Both ends of a range, or all choices."""
        return next(values for _, values in self if values is not None)

    def contains(self, value: Any) -> bool:
        """Return whether a draw can give `value`."""
        if self.choice is not None:
            return any(type(value) is type(choice) and value == choice for choice in self.choice)
        is_number = type(value) is int or (type(value) is float and self.integers is None)
        return is_number and self.ends[0] <= value <= self.ends[1]


def _range_rules(name: str, values: list[Any]) -> Rules:
    yield len(values) != 2, name, "must be two numbers, [lowest, highest]", values
    low, high = values
    yield not low < high, name, "the first number must be below the second", values
    yield name == "log_uniform" and low <= 0, name, "a logarithmic range must begin above 0", values
    yield low < -_MAX_NUMBER or high > _MAX_NUMBER, name, f"must be within -{_MAX_NUMBER}..{_MAX_NUMBER}", values


def _choice_rules(choices: list[Any]) -> Rules:
    plain = (bool, int, float, str, types.NoneType)
    for index, choice in enumerate(choices):
        is_plain = all(isinstance(member, plain) for member in (choice if isinstance(choice, list) else [choice]))
        fix = "a choice is a number, text, true, false, null or a list of these"
        yield not is_plain, "choice", fix, repr(choice)[:80]
        yield choice in choices[:index], "choice", "the same choice twice; remove one", choice
    yield len(choices) < 2, "choice", "needs two or more values; move a constant to set"


@dataclass(frozen=True)
class Bound:
    """A constraint on a column: `column <= limit` (sign 1) or `column >= limit` (sign -1)."""

    column: str
    sign: int
    limit: float

    @property
    def text(self) -> str:
        return f"{self.column} {'<=' if self.sign > 0 else '>='} {self.limit:.15g}"

    def excess(self, value: float) -> float:
        """Return how far `value` is on the wrong side of the limit, in the column's unit; 0 or less if it is allowed."""
        return self.sign * (value - self.limit)


def _parse_bound(column: str, text: str) -> Bound:
    match = re.fullmatch(r"\s*(<=|>=)\s*([-+]?[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\s*", text, re.ASCII)
    limit = float(match[2].replace("_", "")) if match else math.inf
    if match is None or math.isinf(limit):
        raise RuleError(column, text, 'must be "<= NUMBER" or ">= NUMBER"')
    return Bound(column, 1 if match[1] == "<=" else -1, limit)


def _check_columns(section: dict[str, Any]) -> dict[str, Any]:
    for name in section:
        if name not in METRICS:
            raise RuleError(name, name, f"is not a numeric column; {suggestion(name, METRICS)}")
    return section


def _check_constraints(constraints: dict[str, str]) -> dict[str, str]:
    for column, text in _check_columns(constraints).items():
        _parse_bound(column, text)
    return constraints


Constraints = Annotated[dict[str, str], AfterValidator(_check_constraints)]
"""Column -> `<= NUMBER` or `>= NUMBER`."""


class Search(Section):
    """The section as written.

    `trials`: number of proposals; each runs with all seeds of the sweep. `sampler`: a module of `pgray/search/samplers/`.
    `objectives`: column -> min or max; default: minimize sliding_bpb, or post_quant_bpb if eval.stride is 0.
    `constraints`: the byte cap on artifact_bytes is added unless the column is given. `when`: key -> the condition under
    which it is drawn. `parallel`: limit on open proposals; by default only the machine's resources limit them.
    """

    trials: int = Field(ge=1, le=100_000)
    sampler: str = "tpe"
    objectives: Annotated[dict[str, Direction], AfterValidator(_check_columns)] | None = Field(None, min_length=1)
    constraints: Constraints = Field(default_factory=dict)
    space: dict[str, Dimension] = Field(min_length=1)
    when: dict[str, str] = Field(default_factory=dict)
    parallel: int | None = Field(None, ge=1)

    def rules(self) -> Rules:
        yield "seed" in self.space, "space.seed", "seeds are replicates of every proposal; use seeds: [...]", "seed"
        for key, text in self.when.items():
            yield (
                key not in self.space,
                f"when.{key}",
                f"is not a key of space; use one of {', '.join(self.space)}",
                text,
            )

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The constraints, including the byte cap."""
        texts = {"artifact_bytes": f"<= {ARTIFACT_CAP_BYTES}"} | self.constraints
        return tuple(_parse_bound(column, text) for column, text in texts.items())

"""The section `search` of a sweep file, checked as far as that is possible without a configuration."""

import math
import re
import types
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pgray.spec.sections import SweepSection
from trainer.errors import InputError
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.records.results import METRICS
from trainer.section import RuleError

Direction = Literal["min", "max"]


Sampler = Literal["tpe", "random", "nsga2", "cmaes", "gp"]


_LARGEST = 10**9  # Optuna's densities over much wider ranges of integers are no longer numbers


class Dimension(SweepSection):
    """The values of one key: exactly one of these. Both ends of a range belong to it."""

    log_uniform: list[float] | None = None
    uniform: list[float] | None = None
    integers: list[int] | None = Field(None, alias="int")
    choice: list[Any] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in ("log_uniform", "uniform", "int", "choice") if self._values(name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise RuleError("values", found, "give exactly one of log_uniform, uniform, int, choice")
        name, values = given[0], self.ends
        if name == "choice":
            _check_choices(values)
            return self
        if len(values) != 2:
            raise RuleError(name, values, "must be two numbers, [lowest, highest]")
        low, high = values
        if not low < high:
            raise RuleError(name, values, "the first number must be below the second")
        if name == "log_uniform" and low <= 0:
            raise RuleError(name, values, "a logarithmic range must begin above 0")
        if not -_LARGEST <= low < high <= _LARGEST:
            raise RuleError(name, values, f"must be within -{_LARGEST}..{_LARGEST}")
        return self

    @property
    def ends(self) -> list[Any]:
        """Both ends of a range, or all choices."""
        return next(v for v in (self.log_uniform, self.uniform, self.integers, self.choice) if v is not None)

    def holds(self, value: Any) -> bool:
        """Whether a draw can give `value`."""
        if self.choice is not None:
            return any(type(value) is type(choice) and value == choice for choice in self.choice)
        is_number = type(value) is int or (type(value) is float and self.integers is None)
        return is_number and self.ends[0] <= value <= self.ends[1]

    def _values(self, name: str) -> list[Any] | None:
        found: list[Any] | None = getattr(self, "integers" if name == "int" else name)
        return found


def _check_choices(choices: list[Any]) -> None:
    plain = (bool, int, float, str, types.NoneType)
    for choice in choices:
        members = choice if isinstance(choice, list) else [choice]
        if not all(isinstance(member, plain) for member in members):
            raise RuleError(
                "choice", repr(choice)[:80], "a choice is a number, text, true, false, null or a list of these"
            )
    for index, choice in enumerate(choices):
        if choice in choices[:index]:
            raise RuleError("choice", choice, "the same choice twice; remove one")
    if len(choices) < 2:
        raise RuleError("choice", choices, "needs two or more; a value that stays the same belongs into set")


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
        """How far `value` is on the wrong side, in the column's unit; 0 or below: it is kept."""
        return self.sign * (value - self.limit)


class Search(SweepSection):
    """The section as written.

    `trials`: how many proposals are made; each has all seeds of the sweep. `sampler`: `random`; `tpe` (several
    objectives, conditional keys); `gp` (several objectives; draws conditional keys at random); `nsga2` (a fifth of
    `trials`, 4 to 50, is a generation); `cmaes` (one objective, numbers only). `objectives`: default sliding_bpb, or
    post_quant_bpb where the base's eval.stride is 0, to be small. `constraints`: column -> `<= x` or `>= x`; the cap on
    artifact_bytes is always among them, unless given otherwise. `parallel`: proposals open at a time; default: as many
    as the machine has room for.
    """

    trials: int = Field(ge=1, le=100_000)
    sampler: Sampler = "tpe"
    objectives: dict[str, Direction] | None = Field(None, min_length=1)
    constraints: dict[str, str] = Field(default_factory=dict)
    space: dict[str, Dimension] = Field(min_length=1)
    when: dict[str, str] = Field(default_factory=dict)
    parallel: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for section in ("objectives", "constraints"):
            for name in getattr(self, section) or {}:
                if name not in METRICS:
                    raise RuleError(f"{section}.{name}", name, f"is no numeric column; use one of {', '.join(METRICS)}")
        for name, text in self.constraints.items():
            _parse_bound(name, text)
        if "seed" in self.space:
            raise RuleError("space.seed", "seed", "seeds are replicates of every proposal; use seeds: [...]")
        for key, text in self.when.items():
            if key not in self.space:
                raise RuleError(f"when.{key}", text, f"is no key of space; use one of {', '.join(self.space)}")
        if self.sampler == "cmaes":
            self._check_cmaes()
        return self

    def _check_cmaes(self) -> None:
        if self.objectives and len(self.objectives) > 1:
            raise RuleError(
                "sampler", "cmaes", "has one objective only; use tpe, nsga2 or gp, or make one a constraint"
            )
        if self.when:
            raise RuleError("sampler", "cmaes", "knows no conditional keys; use tpe, or remove when")
        for key, dimension in self.space.items():
            if dimension.choice is not None:
                raise RuleError("sampler", "cmaes", f"searches numbers only and {key} is a choice; use tpe")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The constraints, the cap among them."""
        texts = {"artifact_bytes": f"<= {ARTIFACT_CAP_BYTES}"} | self.constraints
        return tuple(_parse_bound(name, text) for name, text in texts.items())


def check_constraint(column: str, text: str, origin: str) -> None:
    """Raises InputError where this is no constraint on a numeric column of a result."""
    if column not in METRICS:
        raise InputError(
            origin, f"constraints.{column}", text, f"is no numeric column; use one of {', '.join(METRICS)}"
        )
    try:
        _parse_bound(column, text)
    except RuleError as error:
        raise InputError(origin, error.key, error.value, error.fix) from None


def _parse_bound(name: str, text: str) -> Bound:
    match = re.fullmatch(r"\s*(<=|>=)\s*([-+]?[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\s*", text, re.ASCII)
    limit = float(match[2].replace("_", "")) if match else math.inf
    if match is None or math.isinf(limit):
        raise RuleError(f"constraints.{name}", text, 'must be "<= NUMBER" or ">= NUMBER"')
    return Bound(name, 1 if match[1] == "<=" else -1, limit)

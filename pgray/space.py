"""The section `search:` of a sweep file: what is searched, over which values, towards what. Knows nothing of Optuna.

`Search` is the section as written, checked for what can be said without a configuration; `settle` checks it against the
sweep's base configuration. A conditional key (`when`) is drawn after all keys that its condition names, and only where
the condition holds; where it does not, the key is absent and the base's value stands.
"""

import math
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import islice, product
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from pgray.conditions import Condition
from pgray.part import Part
from trainer.config import Config, RuleError
from trainer.errors import InputError
from trainer.limits import ARTIFACT_CAP_BYTES
from trainer.presets.resolve import config_keys
from trainer.record import TrialResult

Direction = Literal["min", "max"]
Sampler = Literal["tpe", "random", "nsga2", "cmaes", "gp"]
Build = Callable[[Mapping[str, Any], str], Config]
"""Dotted changes and where they come from (for errors) -> the config of the first seed. Raises InputError."""

Parents = Mapping[str, Collection[str]]
"""Key -> the keys of the space that its condition names."""

_LARGEST = 10**9  # Optuna's densities over much wider ranges of integers are no longer numbers
_MAX_COMBINATIONS = 1000  # of a conditional key's parents, tried in order to make its condition hold


def _numeric_columns() -> Iterator[str]:
    for name, field in TrialResult.model_fields.items():
        kinds = set(get_args(field.annotation)) - {types.NoneType} or {field.annotation}
        if kinds <= {int, float} and name not in ("seed", "schema_version"):
            yield name


METRICS: tuple[str, ...] = tuple(_numeric_columns())
"""The numeric columns of a TrialResult: what an objective or a constraint can be about."""


class Dimension(Part):
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


class Search(Part):
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


def check_constraint(column: str, text: str, place: str) -> None:
    """Raises InputError where this is no constraint on a numeric column of a result."""
    if column not in METRICS:
        raise InputError(place, f"constraints.{column}", text, f"is no numeric column; use one of {', '.join(METRICS)}")
    try:
        _parse_bound(column, text)
    except RuleError as error:
        raise InputError(place, error.key, error.value, error.fix) from None


def _parse_bound(name: str, text: str) -> Bound:
    match = re.fullmatch(r"\s*(<=|>=)\s*([-+]?[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\s*", text, re.ASCII)
    limit = float(match[2].replace("_", "")) if match else math.inf
    if match is None or math.isinf(limit):
        raise RuleError(f"constraints.{name}", text, 'must be "<= NUMBER" or ">= NUMBER"')
    return Bound(name, 1 if match[1] == "<=" else -1, limit)


@dataclass(frozen=True)
class Space:
    """A search that fits its base configuration. Make it with `settle`.

    `order`: the keys as they are drawn, each after those that its condition names.
    """

    search: Search
    objectives: dict[str, Direction]
    base: Config
    conditions: Mapping[str, Condition]
    order: tuple[str, ...]

    def draw(self, pick: Callable[[str], Any], among: Collection[str] | None = None) -> dict[str, Any]:
        """Values for every key that acts, in drawing order; `pick` gives a key's value.

        Args:
            among: the keys that may be drawn; default: all.
        Raises:
            InputError: a condition cannot be decided.
        """
        changes: dict[str, Any] = {}
        config = self.base
        for key in self.order:
            if among is not None and key not in among:
                continue
            if key not in self.conditions or self.conditions[key].holds(config):
                changes[key] = pick(key)
                config = _with_value(config, key.split("."), changes[key])
        return changes

    def fits(self, changes: Mapping[str, Any]) -> bool:
        """Whether a draw from this space can give `changes`: they may stem from an earlier version of the sweep."""
        try:
            drawn = self.draw(lambda key: changes[key])
        except (KeyError, InputError):
            return False
        return drawn.keys() == changes.keys() and all(self.search.space[k].holds(v) for k, v in changes.items())


def settle(search: Search, build: Build, place: str) -> Space:
    """Check a search against the sweep's base configuration, so that a bad range is told before anything is launched.

    Both ends of every range and every choice must, alone over the base, make a valid configuration; the ends of a
    conditional key where its condition holds. Keys that become active on the way stand at their first end.

    Args:
        build: makes a config of changes over the base; `build({}, ...)` is the base itself.
        place: names the file in errors.
    Raises:
        InputError: an unknown key, a bad end, a condition that is none or that leads in a circle, an objective that the
            configuration does not measure.
    """
    known = set(config_keys())
    for key, dimension in search.space.items():
        if key not in known:
            build({key: dimension.ends[0]}, "search: space")
            raise AssertionError(f"a config with the unknown key {key} was built")
    conditions = {key: Condition(text, place, f"search.when.{key}") for key, text in search.when.items()}
    parents = {key: conditions[key].keys & set(search.space) if key in conditions else set() for key in search.space}
    try:
        order = tuple(TopologicalSorter(parents).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        key = error.args[1][0]
        raise InputError(place, f"search.when.{key}", search.when[key], f"goes in a circle: {circle}") from None
    base = build({}, "search: base")
    objectives = search.objectives or {"sliding_bpb" if base.eval.stride else "post_quant_bpb": "min"}
    space = Space(search, objectives, base, conditions, order)
    _check_objectives(space, place)
    for key, value, changes in _corners(space, parents):
        where = f"search: space.{key} at {value!r}"
        if _value(build(changes, where), key) != (tuple(value) if isinstance(value, list) else value):
            raise InputError(
                place, f"search.space.{key}", value, "--set gives this key another value; remove one of both"
            )
    return space


def _check_objectives(space: Space, place: str) -> None:
    for column, switch in (("sliding_bpb", "eval.stride"), ("ttt_bpb", "eval.ttt.enabled")):
        is_asked = column in space.objectives or column in space.search.constraints
        if is_asked and switch not in space.search.space and not _value(space.base, switch):
            fix = (
                f"is not measured, since {switch} is {_value(space.base, switch)}; set {switch}, or use post_quant_bpb"
            )
            section = "objectives" if column in space.objectives else "constraints"
            raise InputError(place, f"search.{section}", column, fix)


def _corners(space: Space, parents: Parents) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Key, end, and the changes that have the key alone at this end, with what makes and follows from its acting.

    A conditional key is left out where no ends of its parents make its condition hold.
    """
    dimensions = space.search.space
    for key, dimension in dimensions.items():
        above = _ancestors(key, parents)
        among = {key, *above, *space.conditions}
        for end in dimension.ends:
            for values in islice(product(*(dimensions[parent].ends for parent in above)), _MAX_COMBINATIONS):
                fixed = {**dict(zip(above, values, strict=True)), key: end}
                changes = space.draw(lambda k, fixed=fixed: fixed.get(k, dimensions[k].ends[0]), among)  # type: ignore[misc]
                if key in changes:
                    yield key, end, changes
                    break


def _ancestors(key: str, parents: Parents) -> list[str]:
    found: list[str] = []
    for parent in sorted(parents[key]):
        found += [name for name in (*_ancestors(parent, parents), parent) if name not in found]
    return found


def _with_value(node: Any, path: list[str], value: Any) -> Any:
    """A config with one value replaced and no rule checked: until all keys are drawn, rules may well be broken."""
    head, *rest = path
    return node.model_copy(update={head: _with_value(getattr(node, head), rest, value) if rest else value})


def _value(config: Config, key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        node = getattr(node, name)
    return node

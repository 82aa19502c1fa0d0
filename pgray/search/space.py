"""The search space: the section `search:` checked against the sweep's base configuration.

A conditional key (`when`) is drawn after all keys that its condition names, and only if the condition holds; otherwise the
key is left out and keeps the base's value.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import islice, product
from operator import attrgetter
from typing import Any

from pgray.search.samplers import check_sampler
from pgray.spec.expressions import Condition
from pgray.spec.search import Direction, Search
from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import config_keys
from trainer.records.results import HEADLINES, METRICS

BuildConfig = Callable[[Mapping[str, Any], str], Config]
"""(dotted changes to the base, label for errors) -> config with the first seed. Raises InputError."""

_MAX_COMBINATIONS = 1000  # of the parents' values, tried in order until a conditional key is active


@dataclass(frozen=True)
class Space:
    """A search that fits its base configuration. Create it with `make_space`."""

    search: Search
    objectives: dict[str, Direction]
    base: Config
    conditions: Mapping[str, Condition]
    parents: Mapping[str, AbstractSet[str]]  # key -> the keys of the space that its condition names
    order: tuple[str, ...]  # in which keys are drawn: each after the keys that its condition names

    def draw(self, pick: Callable[[str], Any], keys: Collection[str] | None = None) -> dict[str, Any]:
        """Return key -> value for every active key, in drawing order.

        Args:
            pick: key -> value.
            keys: the keys that may be drawn; default: all.
        Raises:
            InputError: a condition cannot be evaluated.
        """
        changes: dict[str, Any] = {}
        config = self.base
        for key in self.order:
            if keys is not None and key not in keys:
                continue
            if key not in self.conditions or self.conditions[key].holds(config):
                changes[key] = pick(key)
                config = _with_value(config, key.split("."), changes[key])
        return changes

    def contains(self, changes: Mapping[str, Any]) -> bool:
        """Return whether a draw can give `changes`, which may come from an earlier version of the sweep."""
        try:
            drawn = self.draw(lambda key: changes[key])
        except (KeyError, InputError):
            return False
        return drawn.keys() == changes.keys() and all(self.search.space[k].contains(v) for k, v in changes.items())


def make_space(search: Search, build: BuildConfig, origin: str) -> Space:
    """Check a search against the sweep's base configuration, so that a bad range is found before anything is launched.

    Both ends of every range, and every choice, must make a valid configuration when they alone are changed. Conditional
    keys are checked where their condition holds; other keys that this needs are set to one of their ends.

    Args:
        build: builds a config; `build({}, ...)` is the base itself.
        origin: names the file in errors.
    Raises:
        InputError: an unknown key or sampler, a bad end, a bad or circular condition, or an objective or constraint that
            the configuration does not measure.
    """
    check_sampler(search, origin)
    known = set(config_keys())
    for key in search.space:
        if key not in known:
            build({key: search.space[key].ends[0]}, "search: space")  # raises InputError, which suggests a similar key
    conditions = {key: Condition(text, origin, f"search.when.{key}") for key, text in search.when.items()}
    parents = {key: conditions[key].keys & set(search.space) if key in conditions else set() for key in search.space}
    try:
        order = tuple(TopologicalSorter(parents).static_order())
    except CycleError as error:
        key, circle = error.args[1][0], " -> ".join(reversed(error.args[1]))
        raise InputError(origin, f"search.when.{key}", search.when[key], f"circular conditions: {circle}") from None
    base = build({}, "search: base")
    objectives = search.objectives or {next(name for name in HEADLINES if METRICS[name].is_measured(base)): "min"}
    space = Space(search, objectives, base, conditions, parents, order)
    _check_measured(space, origin)
    for key, end, changes in _changes_at_ends(space):
        built = attrgetter(key)(build(changes, f"search: space.{key} at {end!r}"))
        if built != (tuple(end) if isinstance(end, list) else end):
            fix = "--set gives this key another value; remove one of them"
            raise InputError(origin, f"search.space.{key}", end, fix)
    return space


def _check_measured(space: Space, origin: str) -> None:
    for section, columns in (("objectives", space.objectives), ("constraints", space.search.constraints)):
        for column in columns:
            needs = METRICS[column].needs
            if needs not in space.search.space and not METRICS[column].is_measured(space.base):
                value = attrgetter(needs)(space.base)
                fix = f"is not measured, since {needs} is {value}; set {needs}, or use post_quant_bpb"
                raise InputError(origin, f"search.{section}", column, fix)


def _changes_at_ends(space: Space) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield (key, end, changes) for each end of each key; the changes include what makes a conditional key active.

    A conditional key is skipped if no combination of its parents' ends makes it active.
    """
    ends = {key: dimension.ends for key, dimension in space.search.space.items()}
    first = {key: values[0] for key, values in ends.items()}
    for key in ends:
        needed = {key}
        for name in reversed(space.order):
            needed |= space.parents[name] if name in needed else set()
        above = [name for name in space.order if name in needed and name != key]
        for end in ends[key]:
            for values in islice(product(*(ends[name] for name in above)), _MAX_COMBINATIONS):
                fixed = first | dict(zip(above, values, strict=True)) | {key: end}
                changes = space.draw(fixed.__getitem__, {*needed, *space.conditions})
                if key in changes:
                    yield key, end, changes
                    break


def _with_value(node: Any, path: list[str], value: Any) -> Any:
    """Return a config with one value replaced, unchecked: until all keys are drawn, rules may be broken."""
    head, *rest = path
    return node.model_copy(update={head: _with_value(getattr(node, head), rest, value) if rest else value})

"""The section `search:` of a sweep file: what is searched, over which values, towards what. Knows nothing of Optuna.

`Search` is the section as written, checked for what can be said without a configuration; `make_space` checks it against the
sweep's base configuration. A conditional key (`when`) is drawn after all keys that its condition names, and only where
the condition holds; where it does not, the key is absent and the base's value stands.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import islice, product
from typing import Any

from pgray.spec.expressions import Condition
from pgray.spec.search import Direction, Search
from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import config_keys
from trainer.records.results import HEADLINES, METRICS

Build = Callable[[Mapping[str, Any], str], Config]
"""Dotted changes and where they come from (for errors) -> the config of the first seed. Raises InputError."""

Parents = Mapping[str, Collection[str]]
"""Key -> the keys of the space that its condition names."""

_MAX_COMBINATIONS = 1000  # of a conditional key's parents, tried in order to make its condition hold


@dataclass(frozen=True)
class Space:
    """A search that fits its base configuration. Make it with `make_space`.

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


def make_space(search: Search, build: Build, origin: str) -> Space:
    """Check a search against the sweep's base configuration, so that a bad range is told before anything is launched.

    Both ends of every range and every choice must, alone over the base, make a valid configuration; the ends of a
    conditional key where its condition holds. Keys that become active on the way stand at their first end.

    Args:
        build: makes a config of changes over the base; `build({}, ...)` is the base itself.
        origin: names the file in errors.
    Raises:
        InputError: an unknown key, a bad end, a condition that is none or that leads in a circle, an objective that the
            configuration does not measure.
    """
    known = set(config_keys())
    for key, dimension in search.space.items():
        if key not in known:
            build({key: dimension.ends[0]}, "search: space")
            raise AssertionError(f"a config with the unknown key {key} was built")
    conditions = {key: Condition(text, origin, f"search.when.{key}") for key, text in search.when.items()}
    parents = {key: conditions[key].keys & set(search.space) if key in conditions else set() for key in search.space}
    try:
        order = tuple(TopologicalSorter(parents).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        key = error.args[1][0]
        raise InputError(origin, f"search.when.{key}", search.when[key], f"goes in a circle: {circle}") from None
    base = build({}, "search: base")
    objectives = search.objectives or {next(name for name in HEADLINES if METRICS[name].is_measured(base)): "min"}
    space = Space(search, objectives, base, conditions, order)
    _check_objectives(space, origin)
    for key, value, changes in _corners(space, parents):
        where = f"search: space.{key} at {value!r}"
        if _value(build(changes, where), key) != (tuple(value) if isinstance(value, list) else value):
            raise InputError(
                origin, f"search.space.{key}", value, "--set gives this key another value; remove one of both"
            )
    return space


def _check_objectives(space: Space, origin: str) -> None:
    for column, switch in ((name, metric.needs) for name, metric in METRICS.items() if metric.needs):
        is_asked = column in space.objectives or column in space.search.constraints
        if is_asked and switch not in space.search.space and not _value(space.base, switch):
            fix = (
                f"is not measured, since {switch} is {_value(space.base, switch)}; set {switch}, or use post_quant_bpb"
            )
            section = "objectives" if column in space.objectives else "constraints"
            raise InputError(origin, f"search.{section}", column, fix)


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

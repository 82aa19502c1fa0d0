"""The designs of a sweep: which named arms an `arms`, `grid`, `one_factor` or `leave_one_out` section stands for.

Each design is a pure function from its section to ordered (name, overrides) pairs; the overrides are dotted and lie over
the sweep's preset and `set`. Merging them into configs is `expand.py`'s business.
"""

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from pgray.spec.sweep import LeaveOneOut, SweepFile
from trainer.errors import InputError
from trainer.presets.resolve import config_keys, flatten

Overrides = dict[str, Any]
NamedArms = dict[str, Overrides]
_MOST_ARMS = 10_000  # a slip of the pen gives billions, which no memory holds


def design_arms(file: SweepFile, at_arms: Mapping[str, Mapping[str, Any]], origin: str) -> NamedArms:
    """The sweep's arms in order: name -> dotted overrides, `extends` and the stand-ins of `at_arms` merged in.

    Args:
        file: the sweep; exactly one design is set.
        at_arms: arm name -> overrides that hold at the preset in use. An arm that extends another inherits them.
        origin: names the file in errors.
    Raises:
        InputError: two arms of one name, an unknown or circular `extends`, a part that `full` does not know.
    """
    if file.arms is not None:
        written = {name: dict(spec or {}) for name, spec in file.arms.items()}
        arms = {name: _with_parents(name, written, at_arms, origin) for name in written}
    else:
        if file.grid is not None:
            arms = _grid(file.grid, origin)
        elif file.one_factor is not None:
            arms = _one_factor(file.one_factor, file.control or "control", origin)
        else:
            assert file.leave_one_out is not None
            arms = _leave_one_out(file.leave_one_out, file.control or "full", origin)
        arms = {name: overrides | flat(at_arms.get(name, {}), f"{origin}: at") for name, overrides in arms.items()}
    for name in arms:
        _check_name(name, origin)
    for name in at_arms:
        if name not in arms:
            raise InputError(origin, f"at arms {name}", name, f"no such arm; use one of {', '.join(arms)}")
    return arms


def flat(mapping: Mapping[str, Any], origin: str) -> Overrides:
    """Nested or dotted overrides as dotted ones; a key written both ways is an error, not a silent choice."""
    flattened: Overrides = {}
    for key, value in flatten(mapping):
        if key in flattened:
            raise InputError(origin, key, value, "given twice, nested and dotted; remove one")
        flattened[key] = value
    return flattened


def grid_name(point: Mapping[str, Any]) -> str:
    """An arm's name from the values it is made of: `qna.magnitude=1.0,quant.bits.mlp=6`."""
    # A slash would make a folder of the name; arms written by hand may not have one either.
    return ",".join(f"{key}={value_text(value)}" for key, value in point.items()).replace("/", "|")


def changes_text(changes: Mapping[str, Any]) -> str:
    """What an arm sets, for people; `quant.bits.*=6` where every key of a section has one value."""
    left = {key: value_text(value) for key, value in changes.items()}
    shown: list[str] = []
    for key, value in changes.items():
        section = key.rpartition(".")[0]
        siblings = [name for name in config_keys() if name.rpartition(".")[0] == section]
        if key not in left:
            continue
        if len(siblings) > 2 and all(left.get(name) == left[key] for name in siblings):
            shown.append(f"{section}.*={left[key]}")
            left = {name: text for name, text in left.items() if name not in siblings}
        else:
            shown.append(f"{key}={value_text(value)}")
    return ", ".join(shown)


def value_text(value: object) -> str:
    """A value as it stands in an arm's name: `1.0`, `true`, `[9,10]`, `ema`."""
    return (
        value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)
    )


def _with_parents(
    name: str, written: Mapping[str, Overrides], at_arms: Mapping[str, Mapping[str, Any]], origin: str
) -> Overrides:
    chain: list[str] = []
    link: Any = name
    while link is not None:
        if not isinstance(link, str) or link not in written:
            raise InputError(origin, f"arms.{chain[-1]}.extends", link, f"no such arm; use one of {', '.join(written)}")
        if link in chain:
            raise InputError(
                origin, f"arms.{chain[-1]}.extends", link, f"goes in a circle: {' -> '.join([*chain, link])}"
            )
        chain.append(link)
        link = written[link].get("extends")
    merged: Overrides = {}
    for link in reversed(chain):
        own = {key: value for key, value in written[link].items() if key != "extends"}
        merged |= flat(own, f"{origin}: arm {link}") | flat(at_arms.get(link, {}), f"{origin}: at")
    return merged


def _grid(grid: Mapping[str, list[Any]], origin: str) -> NamedArms:
    arms: NamedArms = {}
    axes = [[(key, value) for value in _values(values, f"grid.{key}", origin)] for key, values in grid.items()]
    count = math.prod(map(len, axes))
    if count > _MOST_ARMS:
        raise InputError(
            origin, "grid", f"{count:,} arms", f"more than {_MOST_ARMS:,}; give fewer values, or use search"
        )
    for point in itertools.product(*axes):
        _add(arms, grid_name(dict(point)), dict(point), "grid", origin)
    return arms


def _one_factor(factors: Mapping[str, list[Any]], control: str, origin: str) -> NamedArms:
    arms: NamedArms = {control: {}}
    for key, values in factors.items():
        for value in _values(values, f"one_factor.{key}", origin):
            _add(arms, grid_name({key: value}), {key: value}, "one_factor", origin)
    return arms


def _leave_one_out(design: LeaveOneOut, full_name: str, origin: str) -> NamedArms:
    full = flat(design.full, f"{origin}: leave_one_out.full")
    arms: NamedArms = {full_name: full}
    if not design.parts:
        raise InputError(origin, "leave_one_out.parts", {}, "is empty; name the parts that are left out one at a time")
    for name, part in design.parts.items():
        left_out = dict(full)
        for key, value in flat(part, f"{origin}: leave_one_out.parts.{name}").items():
            if key not in full:
                where = f"leave_one_out.parts.{name}.{key}"
                raise InputError(
                    origin, where, value, "full does not set this key; write its value with the part there"
                )
            if full[key] == value:
                del left_out[key]
            else:
                left_out[key] = value
        _add(arms, f"{full_name} minus {name}", left_out, "leave_one_out.parts", origin)
    return arms


def _values(values: list[Any], key: str, origin: str) -> list[Any]:
    if not values:
        raise InputError(origin, key, values, "is empty; give at least one value")
    return values


def _add(arms: NamedArms, name: str, overrides: Overrides, key: str, origin: str) -> None:
    if name in arms:
        raise InputError(origin, key, name, "the same arm twice; remove one")
    arms[name] = overrides


def _check_name(name: str, origin: str) -> None:
    if not name.strip() or name != name.strip():
        raise InputError(origin, "arms", repr(name), "an arm's name must not be empty or begin or end with a space")
    if "/" in name or "\\" in name or any(not c.isprintable() for c in name):
        raise InputError(origin, "arms", repr(name), "an arm's name must have no slash and no control characters")
    if len(name) > 200:
        raise InputError(origin, "arms", f"{name[:40]}...", "an arm's name must be at most 200 characters")

"""The designs of a sweep: expand `arms`, `grid`, `one_factor` or `leave_one_out` into named arms.

An arm is a name and its dotted overrides on top of the sweep's preset and `set`. `pgray/spec/expand.py` merges them into
configs.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pgray.spec.sweep import Sweep
from trainer.errors import InputError
from trainer.presets.resolve import config_keys, flatten
from trainer.records.text import suggestion

Overrides = dict[str, Any]
NamedArms = dict[str, Overrides]
_MAX_ARMS, _MAX_TRIALS = 10_000, 20_000  # a typing mistake can ask for billions, more than memory holds
_MAX_EXTENDS = 100  # arms in one chain of extends


def design_arms(sweep: Sweep) -> NamedArms:
    """Return the arms of a sweep's design in order, name -> dotted overrides, with `extends` and `at.arms` merged in.

    Raises:
        InputError: too many arms or trials, a bad or duplicate arm name, an unknown or circular `extends`, or a part with a
            key that `full` lacks.
    """
    _check_size(sweep)
    arms: NamedArms = {}
    for name, overrides in _design(sweep):
        check_name(name, sweep.origin)
        if name in arms:
            raise InputError(sweep.origin, sweep.file.design, name, "the same arm twice; remove one")
        arms[name] = overrides | flatten_overrides(sweep.at.arms.get(name, {}), f"{sweep.origin}: at")
    for name in sweep.at.arms:
        if name not in arms:
            raise InputError(sweep.origin, f"at arms {name}", name, f"no such arm; {suggestion(name, arms)}")
    return arms


def check_num_trials(num_arms: int, sweep: Sweep) -> None:
    """Raise InputError for a sweep with so many trials that planning it would take minutes and gigabytes."""
    num_seeds = len(sweep.seeds)
    if num_arms * num_seeds > _MAX_TRIALS:
        found = f"{num_arms * num_seeds:,} trials ({num_arms:,} arms x {num_seeds:,} seeds)"
        raise InputError(sweep.origin, sweep.file.design, found, f"more than {_MAX_TRIALS:,}; give fewer arms or seeds")


def flatten_overrides(mapping: Mapping[str, Any], origin: str) -> Overrides:
    """Return nested or dotted overrides as dotted ones. Raises InputError for a seed, and for a key that is given twice."""
    flattened: Overrides = {}
    for key, value in flatten(mapping):
        if key in flattened:
            raise InputError(origin, key, value, "given twice, nested and dotted; remove one")
        if key == "seed":
            raise InputError(origin, key, value, "seeds are replicates of every arm; use seeds: [...]")
        flattened[key] = value
    return flattened


def grid_name(point: Mapping[str, Any]) -> str:
    """Return an arm's name made of its values, such as `qna.magnitude=1.0,quant.bits.mlp=6`."""
    # Arm names must not contain a slash: they are names of folders.
    return ",".join(f"{key}={value_text(value)}" for key, value in point.items()).replace("/", "|")


def changes_text(changes: Mapping[str, Any]) -> str:
    """Return an arm's changes in one line, with `quant.bits.*=6` if every key of a section has the same value."""
    texts = {key: value_text(value) for key, value in changes.items()}
    shown: dict[str, str] = {}
    for key, text in texts.items():
        section = key.rpartition(".")[0]
        siblings = [name for name in config_keys() if name.rpartition(".")[0] == section]
        is_uniform = len(siblings) > 2 and all(texts.get(name) == text for name in siblings)
        shown[f"{section}.*" if is_uniform else key] = text
    return ", ".join(f"{key}={text}" for key, text in shown.items())


def value_text(value: object) -> str:
    """Return a value as it is written in an arm's name: `1.0`, `true`, `[9,10]`, `ema`."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


def _check_size(sweep: Sweep) -> None:
    """Raise InputError for a design with too many arms or trials, before any of them is made."""
    file = sweep.file
    if file.grid:
        num_arms = math.prod(map(len, file.grid.values()))
    elif file.one_factor:
        num_arms = 1 + sum(map(len, file.one_factor.values()))
    elif file.leave_one_out:
        num_arms = 1 + len(file.leave_one_out.parts)
    else:
        num_arms = len(file.arms or {})
    if num_arms > _MAX_ARMS:
        fix = f"more than {_MAX_ARMS:,}; give fewer values, or use search"
        raise InputError(sweep.origin, file.design, f"{num_arms:,} arms", fix)
    check_num_trials(num_arms, sweep)


def _design(sweep: Sweep) -> Iterator[tuple[str, Overrides]]:
    """Yield the arms of the file's design. Two may still have the same name."""
    file, origin = sweep.file, sweep.origin
    if file.arms:
        written = {name: dict(overrides or {}) for name, overrides in file.arms.items()}
        for name in written:
            yield name, _merge_extends(name, written, sweep)
    elif file.grid:
        axes = [_axis("grid", key, values, origin) for key, values in file.grid.items()]
        for point in itertools.product(*axes):
            changes = {key: value for change in point for key, value in change.items()}
            yield grid_name(changes), changes
    elif file.one_factor:
        yield file.control or "control", {}
        for key, values in file.one_factor.items():
            for change in _axis("one_factor", key, values, origin):
                yield grid_name(change), change
    elif file.leave_one_out:
        full_name = file.control or "full"
        full = flatten_overrides(file.leave_one_out.full, f"{origin}: leave_one_out.full")
        yield full_name, full
        for name, part in file.leave_one_out.parts.items():
            yield f"{full_name} minus {name}", _without(name, part, full, origin)


def _merge_extends(name: str, written: Mapping[str, Overrides], sweep: Sweep) -> Overrides:
    """Return an arm's overrides on top of those of the arms that it extends."""
    chain: list[str] = []
    link: Any = name
    while link is not None:
        key = f"arms.{chain[-1]}.extends" if chain else ""
        if not isinstance(link, str) or link not in written:
            raise InputError(sweep.origin, key, link, f"no such arm; {suggestion(link, written)}")
        if len(chain) == _MAX_EXTENDS:
            fix = f"is in a chain of more than {_MAX_EXTENDS} arms; let the last arm set the keys itself"
            raise InputError(sweep.origin, key, link, fix)
        if link in chain:
            raise InputError(sweep.origin, key, link, f"circular extends: {' -> '.join([*chain, link])}")
        chain.append(link)
        link = written[link].get("extends")
    merged: Overrides = {}
    for link in reversed(chain):
        own = {key: value for key, value in written[link].items() if key != "extends"}
        merged |= flatten_overrides(own, f"{sweep.origin}: arm {link}")
        merged |= flatten_overrides(sweep.at.arms.get(link, {}), f"{sweep.origin}: at")
    return merged


def _without(name: str, part: Mapping[str, Any], full: Overrides, origin: str) -> Overrides:
    """Return `full` without one part: the part's keys have the part's values, or the preset's where those are equal."""
    remaining = dict(full)
    for key, value in flatten_overrides(part, f"{origin}: leave_one_out.parts.{name}").items():
        if key not in full:
            fix = "full does not set this key; set it there to the value that it has with the part"
            raise InputError(origin, f"leave_one_out.parts.{name}.{key}", value, fix)
        remaining[key] = value
        if full[key] == value:
            del remaining[key]
    return remaining


def _axis(section: str, key: str, values: list[Any], origin: str) -> list[Overrides]:
    """Return one arm's changes for each value of a key."""
    if not values:
        raise InputError(origin, f"{section}.{key}", values, "is empty; give at least one value")
    flatten_overrides({key: None}, f"{origin}: {section}")  # raises for a seed
    return [{key: value} for value in values]


def check_name(name: str, origin: str, section: str = "arms") -> None:
    """Raise InputError for a name that no arm may have."""
    if not name.strip() or name != name.strip():
        raise InputError(origin, section, repr(name), "an arm's name must not be empty or begin or end with a space")
    if "/" in name or "\\" in name or any(not c.isprintable() for c in name):
        raise InputError(origin, section, repr(name), "an arm's name must have no slash and no control characters")
    if len(name) > 200:
        raise InputError(origin, section, f"{name[:40]}...", "an arm's name must be at most 200 characters")

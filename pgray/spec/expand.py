"""Expand a sweep into arms and trials.

Overrides are merged in this order, and later ones win: the preset, `set`, `at.set`, the arm, `--set` on the command line.
The arms that an arm extends come before it, each followed by its `at.arms`.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pgray.spec.designs import (
    NamedArms,
    Overrides,
    check_name,
    check_num_trials,
    design_arms,
    flatten_overrides,
    grid_name,
)
from pgray.spec.expressions import Condition
from pgray.spec.sweep import Sweep
from results.loading.arm_labels import arm_labels, find_arm
from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import build_config
from trainer.records.text import suggestion


@dataclass(frozen=True)
class Arm:
    """`changes`: the arm's dotted overrides on top of preset and `set`. `config` has the first seed."""

    name: str
    changes: dict[str, Any]
    config: Config


@dataclass(frozen=True)
class Trial:
    arm: str
    seed: int
    config: Config
    changes: dict[str, Any] | None = None  # what a search proposed; None for an arm of the sweep file


@dataclass(frozen=True)
class Expansion:
    arms: tuple[Arm, ...]
    trials: tuple[Trial, ...]  # ordered by arm as in the file, then by seed
    control: str
    dropped: tuple[str, ...]  # arms that a `where` condition excludes, with the condition
    merged: tuple[str, ...]  # arms that `when` makes equal to an earlier arm
    labels: dict[str, str]  # arm -> its short name in tables and charts


def expand(sweep: Sweep, proposals: Mapping[str, dict[str, Any]] | None = None) -> Expansion:
    """Return every arm and trial of a sweep. No two arms of a grid are equal.

    Args:
        proposals: earlier proposals of a search, arm -> changes. They follow the control, which is the sweep's base.
    Raises:
        InputError: a bad key or value, or an unknown or excluded control; names file, key, value and fix.
    """
    file, proposals = sweep.file, proposals or {}
    if file.search:
        check_num_trials(1 + file.search.trials, sweep)
    _check_shared(sweep)
    written = {file.control or "base": {}, **proposals} if file.search else design_arms(sweep)
    active, merged = _apply_when(sweep, written)
    labels = _labels(sweep, active)
    control = find_arm(file.control, labels) or file.control if file.control else next(iter(active))
    if control not in active:
        raise InputError(sweep.origin, "control", control, f"is not an arm; {suggestion(control, active)}")
    arms, dropped = _apply_where(sweep, active, control)
    trials = [
        Trial(arm.name, seed, arm.config.model_copy(update={"seed": seed}), proposals.get(arm.name))
        for arm in arms
        for seed in sweep.seeds
    ]
    return Expansion(tuple(arms), tuple(trials), control, tuple(dropped), tuple(merged), labels)


def _check_shared(sweep: Sweep) -> None:
    """Raise the error of `set` or of `--set`, which would else be reported for the first arm."""
    try:
        arm_config(sweep, "set", {})
    except InputError as error:
        arm_config(replace(sweep, overrides={}), "set", {})
        raise InputError("--set", error.key, error.value, error.fix) from None


def arm_config(sweep: Sweep, label: str, changes: Mapping[str, Any]) -> Config:
    """Return the config of an arm that makes `changes`, with the first seed. `label` names the arm in errors."""
    overrides = {
        **sweep.preset.overrides,
        **shared_overrides(sweep),
        **changes,
        **flatten_overrides(sweep.overrides, "--set"),
    }
    return build_config({**overrides, "seed": sweep.seeds[0]}, f"{sweep.origin}: {label}")


def shared_overrides(sweep: Sweep) -> Overrides:
    """Return what the file sets for every arm at the preset in use, dotted."""
    at = flatten_overrides(sweep.at.set, f"{sweep.origin}: at.{sweep.preset.name}.set")
    return flatten_overrides(sweep.file.set, f"{sweep.origin}: set") | at


def identical_arms(arms: tuple[Arm, ...]) -> list[list[str]]:
    """Return groups of arms with the same config; their trials would give the same numbers."""
    groups: dict[str, list[str]] = defaultdict(list)
    for arm in arms:
        groups[arm.config.model_dump_json()].append(arm.name)
    return [names for names in groups.values() if len(names) > 1]


def _labels(sweep: Sweep, arms: NamedArms) -> dict[str, str]:
    """Return the arms' labels. Raises InputError for a name of no arm, and for two arms with the same name."""
    names, automatic = sweep.file.names, arm_labels(arms)
    chosen = {}
    for key, name in names.items():
        arm = find_arm(key, automatic)
        if arm is None and not sweep.file.search:
            raise InputError(
                sweep.origin, f"names.{key}", name, f"no such arm; use one of {', '.join(automatic.values())}"
            )
        check_name(name, sweep.origin, "names")
        chosen[arm] = key, name
    for arm, (key, name) in chosen.items():
        owners = (other for other in arms if name in (other, chosen.get(other, ("", automatic[other]))[1]))
        if other := next((other for other in owners if other != arm), None):
            raise InputError(sweep.origin, f"names.{key}", name, f"is the name of {other} too; give another")
    return arm_labels(arms, names)


def _apply_when(sweep: Sweep, arms: NamedArms) -> tuple[NamedArms, list[str]]:
    """Remove conditional keys from the arms that do not meet their condition; merge arms that this makes equal."""
    conditions = {key: Condition(text, sweep.origin, f"when.{key}") for key, text in sweep.file.when.items()}
    for key, condition in conditions.items():
        if not any(key in changes for changes in arms.values()):
            raise InputError(sweep.origin, f"when.{key}", condition.text, "no arm sets this key; remove the line")
    kept: NamedArms = {}
    merged: list[str] = []
    for name, changes in arms.items():
        active = _active_changes(sweep, f"arm {name}", changes, conditions)
        if active != changes and active in kept.values():
            merged.append(name)
            continue
        if active != changes and sweep.file.grid is not None:
            name = grid_name({key: value for key, value in active.items() if key in sweep.file.grid}) or "none"
        kept[name] = active
    return kept, merged


def _active_changes(
    sweep: Sweep, label: str, changes: dict[str, Any], conditions: Mapping[str, Condition]
) -> dict[str, Any]:
    """Return the unconditional changes, plus conditional ones added until no further condition becomes true."""
    active = {key: value for key, value in changes.items() if key not in conditions}
    while True:
        config = arm_config(sweep, label, active)
        added = [key for key in changes if key not in active and conditions[key].holds(config)]
        if not added:
            return {key: value for key, value in changes.items() if key in active}  # in the order of `changes`
        active |= {key: changes[key] for key in added}


def _apply_where(sweep: Sweep, arms: NamedArms, control: str) -> tuple[list[Arm], list[str]]:
    """Split arms into those that meet every `where` condition, with their configs, and texts about the others."""
    conditions = [Condition(text, sweep.origin, f"where.{i}") for i, text in enumerate(sweep.file.where)]
    kept: list[Arm] = []
    dropped: list[str] = []
    for name, changes in arms.items():
        config = arm_config(sweep, f"arm {name}", changes)
        broken = next((condition for condition in conditions if not condition.holds(config)), None)
        if broken is None:
            kept.append(Arm(name, changes, config))
        elif name == control:
            raise InputError(sweep.origin, "where", broken.text, f"excludes the control {name}; relax the condition")
        else:
            dropped.append(f"{name} (where {broken.text})")
    return kept, dropped

"""Sweep -> arms -> trials: pure, no disk, no clock.

Later wins: preset < set < at.set < arm (what it extends first, each followed by its at.arms) < --set on the command line.
A grid is exactly the product of its values, less what `where` drops; no two trials have one identity.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pgray.spec.designs import NamedArms, design_arms, flat, grid_name
from pgray.spec.expressions import Condition
from pgray.spec.sweep import PresetOverrides, Sweep
from trainer.config import Config
from trainer.errors import InputError
from trainer.presets.resolve import build_config


@dataclass(frozen=True)
class Arm:
    """`changes`: what the arm sets over preset and `set`, dotted; `config` has the first seed."""

    name: str
    changes: dict[str, Any]
    config: Config


@dataclass(frozen=True)
class Trial:
    arm: str
    seed: int
    config: Config
    changes: dict[str, Any] | None = None  # of a search's arm: the file does not say them


@dataclass(frozen=True)
class Expansion:
    arms: tuple[Arm, ...]
    trials: tuple[Trial, ...]  # arms in the file's order, seeds within
    control: str
    dropped: tuple[str, ...]  # arms that a `where` condition dropped, with the condition
    merged: tuple[str, ...]  # arms that `when` made equal to an earlier one


def expand(sweep: Sweep, proposals: Mapping[str, dict[str, Any]] | None = None) -> Expansion:
    """Every trial a sweep asks for.

    Args:
        proposals: of a search so far: arm -> changes. They follow its control, which is the sweep's base.
    Raises:
        InputError: a bad key or value, an unknown control, or nothing left; names file, key, value and fix.
    """
    file, origin = sweep.file, sweep.origin
    at = file.at.get(sweep.preset.name, PresetOverrides())
    base, last = _base(sweep)
    _config(sweep, "set", base, last)  # so that an error in `set` is not blamed on the first arm

    proposals = proposals or {}
    named = {file.control or "base": {}, **proposals} if file.search else design_arms(file, at.arms, origin)
    written, merged = _apply_when(sweep, named, base, last)
    control = file.control or next(iter(written))
    if control not in written:
        raise InputError(origin, "control", control, f"is not an arm; use one of {', '.join(written)}")
    for name, changes in written.items():
        _refuse_seed(changes, f"{origin}: arm {name}")
    arms, dropped = _apply_where(sweep, written, base, last, control)
    trials = [
        Trial(arm.name, seed, arm.config.model_copy(update={"seed": seed}), proposals.get(arm.name))
        for arm in arms
        for seed in sweep.seeds
    ]
    return Expansion(tuple(arms), tuple(trials), control, tuple(dropped), tuple(merged))


def arm_config(sweep: Sweep, where: str, changes: Mapping[str, Any]) -> Config:
    """The config of `changes` over the sweep's base, with its first seed. `where` names the arm in errors."""
    base, last = _base(sweep)
    return _config(sweep, where, base, dict(changes), last)


def _base(sweep: Sweep) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands below an arm's changes, and what above: preset and `set`, and `--set`."""
    file, origin = sweep.file, sweep.origin
    at = file.at.get(sweep.preset.name, PresetOverrides())
    below = [flat(file.set, f"{origin}: set"), flat(at.set, f"{origin}: at.{sweep.preset.name}.set")]
    above = flat(sweep.overrides, "--set")
    for overrides, where in ((below[0], f"{origin}: set"), (below[1], f"{origin}: at"), (above, "--set")):
        _refuse_seed(overrides, where)
    return {**sweep.preset.overrides, **below[0], **below[1]}, above


def identical_arms(arms: tuple[Arm, ...]) -> list[list[str]]:
    """Groups of arms that have one config; their trials would give the same numbers."""
    groups: dict[str, list[str]] = defaultdict(list)
    for arm in arms:
        groups[arm.config.model_dump_json()].append(arm.name)
    return [names for names in groups.values() if len(names) > 1]


def _refuse_seed(overrides: dict[str, Any], origin: str) -> None:
    if "seed" in overrides:
        raise InputError(origin, "seed", overrides["seed"], "seeds are replicates of every arm; use seeds: [...]")


def _config(sweep: Sweep, where: str, *layers: dict[str, Any]) -> Config:
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    return build_config({**merged, "seed": sweep.seeds[0]}, f"{sweep.origin}: {where}")


def _apply_when(
    sweep: Sweep, arms: NamedArms, base: dict[str, Any], last: dict[str, Any]
) -> tuple[NamedArms, list[str]]:
    """Take a conditional key out of the arms where its condition does not hold, and merge arms that this makes equal."""
    conditions = {key: Condition(text, sweep.origin, f"when.{key}") for key, text in sweep.file.when.items()}
    for key in conditions:
        if not any(key in changes for changes in arms.values()):
            raise InputError(sweep.origin, f"when.{key}", conditions[key].text, "no arm sets this key; remove the line")
    kept: NamedArms = {}
    merged: list[str] = []
    for name, changes in arms.items():
        acting = _acting(sweep, f"arm {name}", changes, conditions, base, last)
        if acting != changes and acting in kept.values():
            merged.append(name)
            continue
        if acting != changes and sweep.file.grid is not None:
            name = grid_name({key: value for key, value in acting.items() if key in sweep.file.grid}) or "none"
        kept[name] = acting
    return kept, merged


def _acting(
    sweep: Sweep,
    where: str,
    changes: dict[str, Any],
    conditions: dict[str, Condition],
    base: dict[str, Any],
    last: dict[str, Any],
) -> dict[str, Any]:
    """The changes that act: without conditional keys at first, then with those whose conditions hold, until no more do."""
    acting = {key for key in changes if key not in conditions}
    while True:
        config = _config(sweep, where, base, {key: changes[key] for key in changes if key in acting}, last)
        more = {key for key in changes if key not in acting and conditions[key].holds(config)}
        if not more:
            return {key: value for key, value in changes.items() if key in acting}
        acting |= more


def _apply_where(
    sweep: Sweep, arms: NamedArms, base: dict[str, Any], last: dict[str, Any], control: str
) -> tuple[list[Arm], list[str]]:
    conditions = [Condition(text, sweep.origin, f"where.{i}") for i, text in enumerate(sweep.file.where)]
    kept: list[Arm] = []
    dropped: list[str] = []
    for name, changes in arms.items():
        config = _config(sweep, f"arm {name}", base, changes, last)
        broken = next((condition for condition in conditions if not condition.holds(config)), None)
        if broken is None:
            kept.append(Arm(name, changes, config))
        elif name == control:
            raise InputError(sweep.origin, "where", broken.text, f"drops the control {name}; loosen it")
        else:
            dropped.append(f"{name} (where {broken.text})")
    return kept, dropped

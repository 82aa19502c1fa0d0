"""Finds the trial that an argument of a command names. Imports no pandas: `pgray logs` uses it too."""

from collections.abc import Mapping

from results.loading.arm_labels import arm_labels
from trainer.errors import InputError
from trainer.presets.yamlfile import read_yaml
from trainer.records.layout import RunLayout

_SHOWN = 10


def sweep_names(layout: RunLayout) -> dict[str, str]:
    """Return the section `names` of a run's sweep file; {} without one, or if the file cannot be read."""
    try:
        raw = read_yaml(layout.sweep)
    except InputError:
        return {}
    names = raw.get("names") if isinstance(raw, dict) else None
    return {str(arm): str(name) for arm, name in names.items() if name} if isinstance(names, dict) else {}


def find_trial(asked: str, arms: Mapping[str, str], names: Mapping[str, str] | None = None) -> str:
    """Return the one trial id among `arms` (trial id -> arm) that is `asked`, starts with it, or belongs to that arm.

    Args:
        names: as in `arm_labels`: an arm may be asked for by its label.
    Raises:
        InputError: no such trial, or more than one; the message lists the candidates.
    """
    if asked in arms:
        return asked
    labels = arm_labels(arms.values(), names)
    found = [name for name, arm in arms.items() if asked in (arm, labels[arm])]
    found = found or [name for name in arms if name.startswith(asked)]  # int6 is an arm, and the start of int6+qat-s1
    if len(found) == 1:
        return found[0]
    known = found or list(arms)
    shown = ", ".join(known[:_SHOWN]) + (" ..." if len(known) > _SHOWN else "")
    fix = f"{'more than one trial' if found else 'no such trial'}; use one of {shown}"
    raise InputError("TRIAL", "trial", asked, fix)

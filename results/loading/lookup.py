"""Finds the trial that an argument of a command names. Imports no pandas: `pgray logs` uses it too."""

import re
from collections import Counter
from collections.abc import Mapping

from results.loading.arm_labels import arm_labels
from trainer.errors import InputError
from trainer.presets.yamlfile import read_yaml
from trainer.records.layout import RunLayout

_SHOWN = 10
_LONG = 32  # characters of a trial id
_SEED_END = re.compile(r"-s\d+$")
_TAIL = re.compile(r"-s\d+-[0-9a-f]+$")


def sweep_names(layout: RunLayout) -> dict[str, str]:
    """Return the section `names` of a run's sweep file; {} without one, or if the file cannot be read."""
    try:
        raw = read_yaml(layout.sweep)
    except InputError:
        return {}
    names = raw.get("names") if isinstance(raw, dict) else None
    return {str(arm): str(name) for arm, name in names.items() if name} if isinstance(names, dict) else {}


def labelled_id(trial_id: str, label: str) -> str:
    """Return a trial id with the label of its arm: `mlp=4 ema-s1-155758fe25`; unchanged if it is not such an id."""
    match = _TAIL.search(trial_id)
    return label + match[0] if match and label else trial_id


def shown_ids(labels: Mapping[str, str]) -> dict[str, str]:
    """Return trial id -> the name that people are shown, which `find_trial` understands.

    It is the id or, if that is long and its arm has another label, the label and the seed, such as `mlp=4 ema-s1`.

    Args:
        labels: trial id -> the label of its arm.
    """
    long = {name: labelled_id(name, label) for name, label in labels.items() if not name.startswith(label)}
    short = {name: shown.rpartition("-")[0] for name, shown in long.items() if len(name) > _LONG}
    times = Counter(short.values())
    return {name: long[name] if name in short and times[short[name]] > 1 else short.get(name, name) for name in labels}


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
    shown = {name: labelled_id(name, labels[arm]) for name, arm in arms.items()}
    found = [name for name, arm in arms.items() if asked in (arm, labels[arm])]
    if not found and _SEED_END.search(asked):  # seed 1 is not seed 12
        found = [name for name in arms if name.startswith(f"{asked}-") or shown[name].startswith(f"{asked}-")]
    if not found:  # int6 is an arm, and the start of int6+qat-s1
        found = [name for name in arms if name.startswith(asked) or shown[name].startswith(asked)]
    if len(found) == 1:
        return found[0]
    known = found or list(arms)
    choices = ", ".join(known[:_SHOWN]) + (" ..." if len(known) > _SHOWN else "")
    fix = f"{'more than one trial' if found else 'no such trial'}; use one of {choices}"
    raise InputError("TRIAL", "trial", asked, fix)

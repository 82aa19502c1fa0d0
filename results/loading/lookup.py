"""Finds the trial that an argument of a command names. Imports no pandas: `pgray logs` uses it too."""

from collections.abc import Mapping

from trainer.errors import InputError

_SHOWN = 10


def find_trial(asked: str, arms: Mapping[str, str]) -> str:
    """Return the one trial id among `arms` (trial id -> arm) that is `asked`, starts with it, or belongs to that arm.

    Raises:
        InputError: no such trial, or more than one; the message lists the candidates.
    """
    if asked in arms:
        return asked
    found = [name for name, arm in arms.items() if arm == asked or name.startswith(asked)]
    if len(found) == 1:
        return found[0]
    known = found or list(arms)
    shown = ", ".join(known[:_SHOWN]) + (" ..." if len(known) > _SHOWN else "")
    fix = f"{'more than one trial' if found else 'no such trial'}; use one of {shown}"
    raise InputError("TRIAL", "trial", asked, fix)

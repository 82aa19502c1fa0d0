"""Which trial a person means. No pandas here: `pgray logs` asks as well."""

from collections.abc import Mapping

from trainer.errors import InputError

_SHOWN = 10


def find_trial(asked: str, arms: Mapping[str, str]) -> str:
    """The one trial id among `arms` (trial id -> arm) that is `asked`, begins with it, or is of that arm.

    Raises:
        InputError: none, or more than one; names those that there are.
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

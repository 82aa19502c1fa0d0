"""Short names of arms for people: `mlp=4 ema` for the grid's `quant.bits.mlp=4,average.kind=ema`.

An arm's own name is its identity in the ledger and never changes. Its label is made when it is shown, from all arms that are
shown together: the end of every key that is unique among their keys, a word without its key, and nothing that all of them
share. The section `names:` of a sweep replaces labels. Tables, charts and commands take labels from here, so they agree.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_NEXT_KEY = re.compile(r",(?=[a-z_][a-z0-9_.]*=)")
_CHANGE = re.compile(r"([a-z_][a-z0-9_]*(?:\.[a-z0-9_]+)+)=(.+)", re.DOTALL)
_WORD = re.compile(r"(?!(?:true|false|null|none)$)[A-Za-z][\w-]*")
_GENERIC = ("enabled", "kind", "value")  # such an end of a key says nothing without the section before it


def arm_labels(arms: Iterable[str], names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return arm -> label, all different.

    Args:
        arms: the names of all arms that are shown together.
        names: arm or automatic label -> the label to use instead.
    """
    arms = list(dict.fromkeys(arms))
    automatic = _made_unique(_automatic(arms))
    names = names or {}
    return _made_unique({arm: names.get(arm) or names.get(label) or label for arm, label in automatic.items()})


def find_arm(text: str, labels: Mapping[str, str]) -> str | None:
    """Return the arm with this name or, if there is none, with this label."""
    return text if text in labels else next((arm for arm, label in labels.items() if label == text), None)


def labelled(trials: "pd.DataFrame", control: str | None = None) -> "tuple[pd.DataFrame, str | None]":
    """Return the trials with labels for arms, in the column and as the control in `attrs`; and the label of `control`.

    `trials.attrs["names"]` holds the names of the run's sweep file: `results.load` puts them there. `control` may be an arm or
    a label.
    """
    if trials.attrs.get("is_labelled") or "arm" not in trials:
        return trials, control
    labels = arm_labels(map(str, trials["arm"]), trials.attrs.get("names"))
    shown = trials.assign(arm=trials["arm"].map(labels).astype("string"))
    own = trials.attrs.get("control")
    shown.attrs = {**trials.attrs, "control": labels.get(str(own), own), "is_labelled": True}
    return shown, control if control is None else labels.get(control, control)


def shortened(texts: Collection[str], chars: int) -> dict[str, str]:
    """Return text -> the text with its middle cut out, all different: a text keeps more than `chars` if it must."""
    cut = {text: elided(text, chars) for text in texts}
    longest = max(map(len, cut), default=0)
    while chars < longest and len(set(cut.values())) < len(cut):
        chars += 1
        seen: dict[str, int] = {}
        for short in cut.values():
            seen[short] = seen.get(short, 0) + 1
        cut = {text: elided(text, chars) if seen[short] > 1 else short for text, short in cut.items()}
    return cut


def elided(text: str, chars: int) -> str:
    """Replace the middle of a long text by an ellipsis."""
    half = (chars - 1) // 2
    return text if len(text) <= chars else f"{text[: chars - 1 - half]}…{text[-half:]}"


def _made_unique(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the arm's own name instead of a label that is another arm's label or name."""
    owners: dict[str, set[str]] = {}
    for arm, label in labels.items():
        owners.setdefault(label, set()).add(arm)
        owners.setdefault(arm, set()).add(arm)
    return {arm: label if len(owners[label]) == 1 else arm for arm, label in labels.items()}


def _automatic(arms: Sequence[str]) -> dict[str, str]:
    changes = {arm: _changes(arm) for arm in arms}
    by_key: dict[str, set[str]] = {}
    for own in changes.values():
        for key, value in own.items():
            by_key.setdefault(key, set()).add(value)
    shared = {key for key in by_key if len(by_key[key]) == 1 and all(key in own for own in changes.values())}
    shown = by_key.keys() - shared or by_key.keys()
    short = _short_keys(by_key)

    def part(key: str, value: str) -> str:
        is_clear = _WORD.fullmatch(value) and not any(value in by_key[other] for other in by_key if other != key)
        return value if is_clear else f"{short[key]}={value}"

    texts = {arm: " ".join(part(*item) for item in own.items() if item[0] in shown) for arm, own in changes.items()}
    return {arm: text or arm for arm, text in texts.items()}


def _changes(arm: str) -> dict[str, str]:
    """Return key -> value of an arm's name that a grid or `one_factor` has made; {} for a name that a person wrote."""
    found = [_CHANGE.fullmatch(text) for text in _NEXT_KEY.split(arm)]
    return {match[1]: match[2] for match in found if match} if all(found) else {}


def _short_keys(keys: Collection[str]) -> dict[str, str]:
    """Return key -> its shortest end that is no end of another key."""
    ends = {key: _ends(key) for key in keys}
    return {
        key: next(end for end in own if all(end == key or end not in ends[other] for other in keys if other != key))
        for key, own in ends.items()
    }


def _ends(key: str) -> list[str]:
    """Return the ends of a dotted key, the shortest first. `average` comes before `average.kind`."""
    words = key.split(".")
    ends = [".".join(words[start:]) for start in range(len(words) - 1, -1, -1)]
    if words[-1] not in _GENERIC:
        return ends
    return [".".join(words[start:-1]) for start in range(len(words) - 2, -1, -1)] + ends[1:]

"""What an arm was configured as: the `config.json` of its trials, flat, and where it differs from the control's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.schema import Row
from trainer.records.files import read_json
from trainer.records.layout import RunLayout

_ABSENT = "–"


@dataclass(frozen=True)
class Change:
    """A config key whose value is not the control's. Values as JSON; a key that one side lacks is `–` there."""

    key: str
    control: str
    arm: str


def config_of(rows: Sequence[Row], runs: Sequence[str]) -> dict[str, Any]:
    """The config of the first of these trials that has one; {} where none has been launched.

    Args:
        rows: trials of one arm. runs: the run folders they may be in.
    """
    paths = (RunLayout(Path(run)).trial(str(row["trial_id"])).config for run in runs for row in rows)
    return next(filter(None, map(read_json, paths)), {})


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; a list is a value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def changes(arm: Mapping[str, Any], control: Mapping[str, Any]) -> list[Change]:
    """The keys in which two configs differ, but the seed, in the order of the control's."""
    mine, theirs = leaves(arm), leaves(control)
    keys = [key for key in {**theirs, **mine} if key != "seed"]
    texts = [(key, _text(theirs, key), _text(mine, key)) for key in keys]
    return [Change(key, before, after) for key, before, after in texts if before != after]


def _text(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key], ensure_ascii=False) if key in config else _ABSENT

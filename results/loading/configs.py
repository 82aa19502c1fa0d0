"""Reads the configs of trials (`config.json`) and lists where two differ."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.schema import Row
from trainer.presets.resolve import flatten
from trainer.records.files import read_json
from trainer.records.layout import RunLayout

_ABSENT = "–"


@dataclass(frozen=True)
class Change:
    """A config key in which an arm differs from the control. Values as JSON; `–` for a missing key."""

    key: str
    control: str
    arm: str


def config_of(rows: Sequence[Row], runs: Sequence[str]) -> dict[str, Any]:
    """Return the config of the first of these trials that has one; {} if none has been launched.

    Args:
        rows: trials of one arm. runs: the run folders they may be in.
    """
    paths = (RunLayout(Path(run)).trial(str(row["trial_id"])).config for run in runs for row in rows)
    return next(filter(None, map(read_json, paths)), {})


def changes(arm: Mapping[str, Any], control: Mapping[str, Any]) -> list[Change]:
    """Return the keys except the seed in which two configs differ, in the order of the control's."""
    mine, theirs = ({k: json.dumps(v, ensure_ascii=False) for k, v in flatten(config)} for config in (arm, control))
    differing = (k for k in theirs | mine if k != "seed" and theirs.get(k) != mine.get(k))
    return [Change(key, theirs.get(key, _ABSENT), mine.get(key, _ABSENT)) for key in differing]

"""Reads the configs of trials (`config.json`), as columns of a frame or as a list of where two differ."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

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


def config_columns(paths: Sequence[Path]) -> pd.DataFrame:
    """Return a row for each config file and a column for each key in it but the seed, such as `optim.matrix_lr`.

    A missing file gives nulls. dtypes are pandas' nullable ones; lists, and values of different types, are JSON texts.
    """
    configs = [{key: value for key, value in flatten(read_json(path)) if key != "seed"} for path in paths]
    keys = dict.fromkeys(key for config in configs for key in config)
    columns = {key: _column([config.get(key) for config in configs]) for key in keys}
    return pd.DataFrame(columns, index=range(len(configs)))


def _column(values: list[Any]) -> "pd.Series[Any]":
    kinds = {type(value) for value in values if value is not None}
    names = {frozenset({bool}): "boolean", frozenset({int}): "Int64", frozenset({str}): "string"}
    dtype = "Float64" if kinds and kinds <= {int, float} else "string"
    if frozenset(kinds) not in names and dtype == "string":
        values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    return pd.Series(values, dtype=names.get(frozenset(kinds), dtype))


def changes(arm: Mapping[str, Any], control: Mapping[str, Any]) -> list[Change]:
    """Return the keys except the seed in which two configs differ, in the order of the control's."""
    mine, theirs = ({k: json.dumps(v, ensure_ascii=False) for k, v in flatten(config)} for config in (arm, control))
    differing = (k for k in theirs | mine if k != "seed" and theirs.get(k) != mine.get(k))
    return [Change(key, theirs.get(key, _ABSENT), mine.get(key, _ABSENT)) for key in differing]

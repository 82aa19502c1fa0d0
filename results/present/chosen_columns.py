"""The table of the columns that a person asked for, and the order of arms by a column.

A column is one of `results.ablation` (mean, delta, p_holm, verdict and so on) or of `results.schema`: of those with numbers
the mean over the arm's finished seeds, of others the different values.
"""

import difflib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from results.present.column_layout import NONE, Parts, TextColumn, half_width, number
from results.schema import COLUMNS, NAMES, Row
from trainer.errors import InputError
from trainer.records.results import LISTED, METRICS
from trainer.records.states import TrialState
from trainer.records.text import suggestion

_DTYPES = {column.name: column.dtype for column in COLUMNS}


def check_metric(metric: str | None, rows: Sequence[Row]) -> None:
    """Raise InputError for a metric that does not exist, or that trials have finished without."""
    if metric is None:
        return
    if metric not in METRICS:
        raise InputError("--metric", "metric", metric, f"unknown metric; {suggestion(metric, METRICS)}")
    finished = [row for row in rows if row["status"] == TrialState.FINISHED]
    if finished and all(row[metric] is None for row in finished):
        measured = [name for name in LISTED if any(row[name] is not None for row in finished)]
        raise InputError("--metric", "metric", metric, f"no finished trial has it; use {' or '.join(measured)}")


def check_columns(names: Sequence[str], compared: pd.DataFrame, option: str) -> None:
    """Raise InputError for a name that is no column of the comparison or of the trials."""
    known = list(dict.fromkeys([*map(str, compared.columns), *NAMES]))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                option, "column", name, f"did you mean {near[0]}?" if near else "unknown column; see docs/columns.md"
            )


def column_value(name: str, line: Row, rows: Sequence[Row]) -> float | str | None:
    """Return an arm's value in a column. `line`: its row of `results.ablation`; `rows`: its finished trials."""
    if name in line:
        value: float | str | None = line[name]
        return value
    values = [row[name] for row in rows if row[name] is not None]
    if not values:
        return None
    if _DTYPES[name] in ("Int64", "Float64"):
        return statistics.fmean(values)
    return ", ".join(dict.fromkeys(str(value).lower() if isinstance(value, bool) else str(value) for value in values))


def sorted_by(sort: str, lines: Sequence[Row], rows: Mapping[str, Sequence[Row]], compared: pd.DataFrame) -> list[Row]:
    """Return the arms' lines in the order of a column, with `-` before its name from high to low; unknown values last.

    The control's difference counts as 0.
    """
    name = sort.removeprefix("-")
    check_columns([name], compared, "--sort")
    keyed: list[tuple[Any, Row]] = []
    for line in lines:
        value = column_value(name, line, rows[line["arm"]])
        keyed.append(
            (0.0 if value is None and name.startswith("delta") and line["verdict"] == "CONTROL" else value, line)
        )
    known = sorted((pair for pair in keyed if pair[0] is not None), key=lambda pair: pair[0], reverse=name != sort)
    return [line for _, line in known] + [line for value, line in keyed if value is None]


def chosen_columns(
    names: Sequence[str], metric: str, lines: Sequence[Row], rows: Mapping[str, Sequence[Row]], compared: pd.DataFrame
) -> dict[str, TextColumn]:
    """Return the columns of these names, after that of the arms. A difference has its 95 % interval beside it."""
    check_columns(names, compared, "--columns")
    columns = {"arm": TextColumn("arm", [(str(line["arm"]),) for line in lines])}
    for name in names:
        cells: list[Parts] = []
        for line in lines:
            text = _text(column_value(name, line, rows[line["arm"]]), _spec(name, metric))
            cells.append((text, half_width(line["ci_low"], line["ci_high"])) if name == "delta" else (text,))
        columns[name] = TextColumn(name, cells)
    return columns


def _text(value: float | str | None, spec: str) -> str:
    if isinstance(value, str):
        return value or NONE
    return number(value, ",.0f" if value is not None and float(value).is_integer() and "+" not in spec else spec)


def _spec(name: str, metric: str) -> str:
    """Return the format of a column's numbers; differences have the metric's digits."""
    if name in METRICS:
        return METRICS[name].spec or ",.4g"
    digits = METRICS[metric].spec.lstrip("+") or ",.4g"
    if name.startswith(("delta", "ci_")):
        return f"+{digits}"
    return digits if name in ("mean", "std") else ".2g" if name.startswith("p") else ",.4g"

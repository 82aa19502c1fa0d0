"""The arms that a chart compares with the control, and the reasons for the arms that it omits."""

from collections import Counter
from collections.abc import Iterator

import pandas as pd

from results.analysis.comparability import Arms, group, measured
from results.plots.style import listed
from results.schema import Row
from trainer.records.results import METRICS
from trainer.records.states import TrialState


def label(metric: str) -> str:
    return (METRICS[metric].label if metric in METRICS else "") or metric


def grouped(trials: pd.DataFrame, control: str | None, metric: str) -> Arms:
    """Return the arms; none without trials. Raises InputError for an unknown control or metric."""
    return group(trials, control, metric, on_mismatch="mark") if len(trials) else Arms("", {}, [], {})


def comparable(arms: Arms, *needed: str) -> Iterator[tuple[str, list[Row]]]:
    """Yield the arms that compare with the control, with the finished rows that have all `needed` columns."""
    for arm, rows in arms.rows.items():
        own = [row for row in measured(rows, needed[0]) if all(row[name] is not None for name in needed)]
        if own and arm not in arms.problems:
            yield arm, own


def missing(arms: Arms, *needed: str) -> str:
    """Name the arms that the chart omits, and why; empty if it shows all."""
    shown = {arm for arm, _ in comparable(arms, *needed)}
    absent = [f"{arm} ({why_missing(arm, arms)})" for arm in arms.rows if arm not in shown]
    return f"Omitted: {listed(absent)}." if absent else ""


def why_missing(arm: str, arms: Arms) -> str:
    if arm in arms.problems:
        return "not comparable"
    states = Counter(
        f"{row['status']}: {row['failure_kind']}" if row["failure_kind"] else row["status"]
        for row in arms.rows[arm]
        if row["status"] != TrialState.FINISHED
    )
    return ", ".join(f"{n} {state}" if n > 1 else state for state, n in states.items()) or "not measured"


def nothing(arms: Arms, metric: str) -> str:
    """Return why a chart shows nothing."""
    if not arms.rows:
        return "there are no trials yet"
    return missing(arms, metric) or f"{arms.control} is the only arm: there is nothing to compare it with"

"""The Pareto frontier of artifact bytes and bpb: `frontier`."""

import pandas as pd

from results.analysis.comparability import NotComparableError, mismatch
from results.loading.runs import current
from results.schema import records
from trainer.records.states import TrialState


def frontier(trials: pd.DataFrame, metric: str = "sliding_bpb") -> pd.DataFrame:
    """Return the Pareto set of (artifact_bytes, metric), both minimized, among finished trials within the cap.

    Args:
        trials: rows as from `results.load`.
        metric: the second objective; rows in which it is null are left out.
    Returns:
        The rows of `trials` that no other row dominates, smallest artifact first. Equal points are all kept.
    Raises:
        NotComparableError: the rows were scored on other tokens, bytes, data, tokenizer or evaluation settings.
    """
    rows = current(trials)
    is_feasible = (rows["status"] == TrialState.FINISHED) & (rows["is_within_cap"] == True)  # noqa: E712
    rows = rows[is_feasible.fillna(False)].dropna(subset=["artifact_bytes", metric])
    listed = records(rows)
    problem = mismatch(listed, listed, metric)
    if problem:
        raise NotComparableError("trials", "comparison", "refused", f"{problem}; select the trials of one evaluation")
    rows = rows.sort_values(["artifact_bytes", metric], kind="stable")
    # In order of size, a row is on the frontier if its value is the lowest so far, or ties with such a row.
    lowest_so_far = rows[metric].cummin()
    is_new_low = lowest_so_far < lowest_so_far.shift().fillna(float("inf"))
    is_tie = rows.duplicated(["artifact_bytes", metric]) & (rows[metric] == lowest_so_far)
    is_on = is_new_low.copy()
    for position in range(1, len(rows)):
        is_on.iloc[position] = is_new_low.iloc[position] or (is_tie.iloc[position] and is_on.iloc[position - 1])
    return rows[is_on]

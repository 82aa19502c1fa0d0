"""The frontier of bytes and bpb: which trials nothing else beats in both."""

import pandas as pd

from results.analysis.ablation import NotComparableError, mismatch
from results.loading.runs import current
from results.schema import records
from trainer.records.states import TrialState


def frontier(trials: pd.DataFrame, metric: str = "sliding_bpb") -> pd.DataFrame:
    """The Pareto set of (artifact_bytes, metric), both to be small, among finished trials within the cap.

    Args:
        trials: rows as from `results.load`.
        metric: the second objective; a row in which it is null cannot be on the frontier.
    Returns:
        The rows of `trials` that no other row beats in one objective without losing in the other, smallest artifact
        first. Equal points are all kept.
    Raises:
        NotComparableError: the rows were scored on other tokens, bytes, data, tokenizer or evaluation settings.
    """
    rows = current(trials)
    is_feasible = (rows["status"] == TrialState.FINISHED) & (rows["is_within_cap"] == True)  # noqa: E712
    rows = rows[is_feasible.fillna(False)].dropna(subset=["artifact_bytes", metric])
    listed = records(rows)
    problem = mismatch(listed, listed, metric)
    if problem:
        raise NotComparableError(
            "trials", "comparison", "refused", f"{problem}; take the frontier of one evaluation at a time"
        )
    rows = rows.sort_values(["artifact_bytes", metric], kind="stable")
    # By size, a row is on the frontier if it has the lowest value so far; equal size and value: a tie is kept.
    lowest_so_far = rows[metric].cummin()
    is_new_low = lowest_so_far < lowest_so_far.shift().fillna(float("inf"))
    is_tie = rows.duplicated(["artifact_bytes", metric]) & (rows[metric] == lowest_so_far)
    is_on = is_new_low.copy()
    for position in range(1, len(rows)):
        is_on.iloc[position] = is_new_low.iloc[position] or (is_tie.iloc[position] and is_on.iloc[position - 1])
    return rows[is_on]

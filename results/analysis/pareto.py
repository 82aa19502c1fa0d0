"""The Pareto frontier of artifact bytes and bpb: `frontier`."""

import pandas as pd

from results.analysis.comparability import NotComparableError, mismatch
from results.analysis.headline import headline_of
from results.loading.runs import current
from results.schema import records
from trainer.records.states import TrialState


def frontier(trials: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """Return the Pareto set of (artifact_bytes, metric), both minimized, among finished trials within the cap.

    Args:
        trials: rows as from `results.load`.
        metric: the second objective; rows in which it is null are left out. None: as `results.ablation` chooses it.
    Returns:
        The rows of `trials` that no other row dominates, smallest artifact first. Equal points are all kept.
    Raises:
        NotComparableError: the rows were scored on other tokens, bytes, data, tokenizer or evaluation settings.
    """
    metric = metric or headline_of(trials)
    rows = current(trials)
    is_feasible = (rows["status"] == TrialState.FINISHED) & (rows["is_within_cap"] == True)  # noqa: E712
    rows = rows[is_feasible.fillna(False)].dropna(subset=["artifact_bytes", metric])
    listed = records(rows)
    problem = mismatch(listed, listed, metric)
    if problem:
        raise NotComparableError("trials", "comparison", "refused", f"{problem}; select the trials of one evaluation")
    rows = rows.sort_values(["artifact_bytes", metric], kind="stable")
    lowest = rows.groupby("artifact_bytes")[metric].min()  # in order of size
    lowest = lowest[lowest < lowest.cummin().shift().fillna(float("inf"))]
    return rows[rows[metric].eq(rows["artifact_bytes"].map(lowest)).fillna(False)]

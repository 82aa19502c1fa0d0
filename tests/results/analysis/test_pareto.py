"""The frontier against its definition, over random clouds with ties."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import results
from results.schema import frame
from tests.results.synthetic import Run

POINT = st.tuples(st.integers(1, 6), st.integers(1, 6), st.booleans(), st.sampled_from(["finished", "failed"]))


@settings(max_examples=40, deadline=None)
@given(st.lists(POINT, max_size=12))
def test_frontier_is_what_nothing_dominates(points: list[tuple[int, int, bool, str]]) -> None:
    trials = frame(
        {"arm": "a", "seed": i, "artifact_bytes": b, "sliding_bpb": float(y), "is_within_cap": ok, "status": status}
        for i, (b, y, ok, status) in enumerate(points)
    )
    legal = [(i, b, y) for i, (b, y, ok, status) in enumerate(points) if ok and status == "finished"]
    expected = {i for i, b, y in legal if not any((b2 <= b and y2 <= y) and (b2 < b or y2 < y) for _, b2, y2 in legal)}
    front = results.frontier(trials)
    assert set(front["seed"]) == expected
    assert front["artifact_bytes"].is_monotonic_increasing


def test_mixed_evaluations_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    run.finish("a", 1, sliding_bpb=2.0, eval_stride=64)
    run.finish("b", 1, sliding_bpb=2.0, eval_stride=128)
    with pytest.raises(results.NotComparableError, match="eval_stride"):
        results.frontier(results.load(run.layout.root))

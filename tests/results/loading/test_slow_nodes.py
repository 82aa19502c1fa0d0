"""Notes on slow nodes: only for GPUs, and only with other nodes to compare with."""

from pathlib import Path
from typing import Any

import pytest

import results
from results.loading.slow_nodes import slow_node_notes
from tests.results.synthetic import Run


def rows(*speeds: tuple[str, float | None], hardware: str = "8 x H100") -> list[dict[str, Any]]:
    return [{"node": node, "node_tflops": tflops, "hardware": hardware} for node, tflops in speeds]


def test_a_node_more_than_five_percent_below_the_median_of_its_like() -> None:
    notes = slow_node_notes(rows(("a", 700.0), ("b", 702.0), ("c", 698.0), ("d", 640.0), ("e", 670.0)))
    assert notes == [None, None, None, "slow node d: 8% below the usual 698 TFLOP/s of 8 x H100", None]


def test_a_node_with_many_trials_counts_once() -> None:
    slow = [("slow", 600.0)] * 20
    assert [bool(note) for note in slow_node_notes(rows(*slow, ("a", 700.0), ("b", 700.0)))] == [True] * 20 + [
        False
    ] * 2


def test_a_node_that_was_slow_for_a_while() -> None:
    assert list(map(bool, slow_node_notes(rows(("a", 700.0), ("a", 701.0), ("a", 600.0))))) == [False, False, True]


@pytest.mark.parametrize(
    "quiet",
    [
        rows(),
        rows(("a", 700.0)),
        rows(("a", None), ("b", 700.0)),
        rows(("a", 0.02), ("b", 0.08), hardware="2 ranks on AMD EPYC (2 cores)"),
        [*rows(("a", 700.0)), *rows(("b", 300.0), hardware="8 x A100")],
    ],
)
def test_rows_without_a_note(quiet: list[dict[str, Any]]) -> None:
    assert not any(slow_node_notes(quiet))


def test_the_note_is_appended_to_the_trainers_notes(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    for seed, speed in enumerate((700.0, 701.0, 500.0)):
        run.finish("int8", seed, hardware="8 x H100", node=f"n{seed}", node_tflops=speed, notes=["late"])
    notes = results.load(tmp_path / "run")["notes"].tolist()
    assert notes == ["late", "late", "late; slow node n2: 29% below the usual 700 TFLOP/s of 8 x H100"]

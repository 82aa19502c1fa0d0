"""Which rows were made on a machine slower than its like: fewer steps in the same time, and no fault of the arm.

Only GPUs are judged: what a shared CPU does in a tenth of a second says nothing about it. Source of the 5 %: a harness of
the challenge's participants that turns away machines which are slower than that.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

SLOW_FRAC = 0.05


def is_judged(row: Mapping[str, Any]) -> bool:
    """Whether the speed of a row's node was measured and says something: that of GPUs (`describe_hardware`)."""
    return row.get("node_tflops") is not None and re.match(r"\d+ x ", row["hardware"] or "") is not None


def slow_node_notes(rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """For each row what to say about its node, if its `node_tflops` is too far below that of equal `hardware`.

    What is usual is the median over nodes of each node's median, so that a node with many trials counts once.
    """
    fleets: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in filter(is_judged, rows):
        fleets[row["hardware"]][row["node"]].append(row["node_tflops"])
    usual = {hardware: median(map(median, nodes.values())) for hardware, nodes in fleets.items()}
    return [_note(row, usual[row["hardware"]]) if is_judged(row) else None for row in rows]


def _note(row: Mapping[str, Any], usual_tflops: float) -> str | None:
    slower_frac = 1 - row["node_tflops"] / usual_tflops
    if slower_frac <= SLOW_FRAC:
        return None
    return f"slow node {row['node']}: {slower_frac:.0%} below the usual {usual_tflops:.0f} TFLOP/s of {row['hardware']}"

"""Finds rows that were made on a slow node: fewer steps in the same time, which is not the arm's effect.

Only GPUs are judged; a short measurement on a shared CPU is not reliable. Source of the 5 % limit: a harness of the
challenge's participants, which rejects slower machines.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

SLOW_FRAC = 0.05


def is_judged(row: Mapping[str, Any]) -> bool:
    """Return whether the speed of a row's node was measured on GPUs (`describe_hardware`: "8 x NAME")."""
    return row.get("node_tflops") is not None and re.match(r"\d+ x ", row["hardware"] or "") is not None


def slow_node_notes(rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Return a note for each row whose `node_tflops` is more than 5 % below the usual one of equal `hardware`, else None.

    Usual is the median over nodes of each node's median, so that a node with many trials counts once.
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

"""How one node's part of a job ended, and how the job ended: what supervisors write last. Imports little.

Each of several nodes leaves a record of its own; every supervisor looks at those of the others and ends its part when
one ended badly. Whoever writes the record of the first node waits for the others and then writes the job's `exit.json`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.records.files import read_json, write_json

PEER = "peer"
"""`stop` of a part that was ended because another node's part had ended badly."""

_END_S = 10.0  # beyond the grace: killing what remains, and a shared folder's delay
_TICK_S = 0.1


def is_bad(record: Mapping[str, Any]) -> bool:
    return bool(record.get("stop") or record.get("error") or record.get("code") != 0)


def a_peer_failed(spec: Mapping[str, Any]) -> bool:
    """Whether the part of some other node has ended badly."""
    peers = (path for path in spec["exits"] if path != spec["exit_file"])
    return any(record and is_bad(record) for record in map(read_json, map(Path, peers)))


def write_exit(spec: Mapping[str, Any], record: Mapping[str, Any], is_cut: Callable[[], bool]) -> None:
    """Write how a part ended; on the first of several nodes wait for the others, and write how the job ended.

    Args:
        spec: what the part's supervisor was told.
        record: how it ended.
        is_cut: whether the job must end now, so that the others will not take long.
    """
    record = {"rank": spec["rank"], "ray_node": spec["ray_node"], "log": Path(spec["log"]).name, **record}
    write_json(Path(spec["exit_file"]), record)
    if spec["rank"] > 0 or not spec["exits"]:
        return
    files = [Path(path) for path in spec["exits"]]
    deadline = float("inf")
    while not all(file.exists() for file in files) and time.monotonic() < deadline:
        if deadline == float("inf") and (is_cut() or is_bad(record) or a_peer_failed(spec)):
            deadline = time.monotonic() + spec["grace_s"] + _END_S
        time.sleep(_TICK_S)
    write_json(Path(spec["job_exit"]), _of_job([read_json(file) or _lost(rank) for rank, file in enumerate(files)]))


def _of_job(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record of the node that failed first, the others only because it did; else of the first node."""
    failed = [node for node in nodes if is_bad(node) and node.get("stop") != PEER]
    cause = min(failed, key=lambda node: float(node.get("ended_at", "inf")), default=nodes[0])
    first = {key: nodes[0].get(key) for key in ("node", "ray_node")}
    times = {
        name: choose(node[name] for node in nodes if name in node)
        for name, choose in (("started_at", min), ("ended_at", max))
        if any(name in node for node in nodes)
    }
    lists = {key: [item for node in nodes for item in node.get(key, [])] for key in ("killed", "survivors")}
    return {**cause, **first, **times, **lists, "nodes": list(nodes)}


def _lost(rank: int) -> dict[str, Any]:
    return {"rank": rank, "code": None, "stop": "lost", "error": f"node {rank} of the job left no word of its end"}

"""Run sweeps on Ray's own test cluster, whose nodes are processes of this machine and whose GPUs are only numbers.

`python -m tests.pgray.cluster_story RUNS CROWD WIDE` runs two sweeps one after the other and prints their exit codes;
`tests/pgray/execution/test_cluster.py` checks what they leave. It needs its own process, since the other tests share a Ray
of one node.
"""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pgray.execution import processes
from pgray.execution.cluster import prepare_ray
from pgray.scheduler.driver import Outcome, run_sweep
from pgray.spec.sweep import Sweep
from tests.pgray.conftest import PLAIN, wait_for
from trainer.records.files import read_json

NUM_NODES = 4
GPUS = 8


def start_cluster() -> Any:
    prepare_ray()
    from ray.cluster_utils import Cluster

    small = {"include_dashboard": False, "object_store_memory": 80 * 1024**2}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    for _ in range(NUM_NODES):
        cluster.add_node(num_cpus=2, num_gpus=GPUS, object_store_memory=small["object_store_memory"], wait=False)
    cluster.wait_for_nodes()
    return cluster


def drive(path: str, runs: str, cluster: Any) -> Outcome:
    sweep = Sweep.from_yaml(path)
    return run_sweep(sweep, runs, address=cluster.address, trainer_command=PLAIN, grace_s=3.0)


def in_thread(function: Callable[[], None]) -> None:
    threading.Thread(target=function, daemon=True).start()


def job_of(run_root: Path, arm: str) -> Path | None:
    """Return the folder of the job that trains an arm, once training has begun."""
    logs = [*run_root.glob(f"trials/{arm}-*/log.txt")]
    jobs = [own.parent for own in run_root.glob("jobs/*/log.txt") for log in logs if own.samefile(log)]
    has_begun = jobs and any("step step=2" in log.read_text() for log in jobs[0].glob("log*.txt"))
    return jobs[0] if has_begun else None


def remove_a_node(cluster: Any, run_root: Path) -> None:
    """Remove the node of the one long job."""
    node_id = read_json(wait_for(lambda: job_of(run_root, "long"), 200) / "launch.json")["ray_node"]
    node = next(node for node in cluster.worker_nodes if node.node_id == node_id)
    (run_root / "removed_node").write_text(node_id)
    cluster.remove_node(node, allow_graceful=False)


def kill_the_second_agent(run_root: Path) -> None:
    job = wait_for(lambda: job_of(run_root, "cut"), 200)
    agents = [
        p for p in processes.of_run(str(run_root)) if "torch.distributed.run" in p.cmdline() and p.cwd() == str(job)
    ]
    next(agent for agent in agents if agent.environ()[processes.NODE_RANK] == "1").kill()


def main(runs: str, crowd: str, wide: str) -> None:
    import ray

    cluster = start_cluster()
    try:
        in_thread(lambda: remove_a_node(cluster, Path(runs) / "crowd"))
        in_thread(lambda: kill_the_second_agent(Path(runs) / "wide"))
        print(json.dumps([drive(path, runs, cluster).exit_code for path in (crowd, wide)]))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Launchers without Ray: what torchrun, srun and plain are told, in which environment, and two nodes that are one job."""

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgray.execution.cluster import Cluster, check_fits
from pgray.execution.launchers.base import LaunchSettings, NodeRendezvous, command, environment, free_port
from pgray.execution.multinode import hold
from pgray.execution.node_runner import NodeRunner
from pgray.execution.worker import follow_job, write_job
from tests.pgray.conftest import PLAIN, marked, wait_for
from trainer.errors import InputError
from trainer.records.job import Job
from trainer.records.layout import RunLayout
from trainer.records.results import TrialResult
from trainer.run.config import Machine

MakeJob = Callable[..., Job]

SRUN = """#!/bin/sh
# Stands in for Slurm's: as many tasks as it is told, numbered; ends as the worst of them does.
echo "$@" > "$SRUN_TOLD"
while [ "${1#--}" != "$1" ]; do case $1 in --ntasks=*) n=${1#*=};; esac; shift; done
i=0; tasks=
while [ $i -lt $n ]; do
  SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=$n CUDA_VISIBLE_DEVICES=all "$@" & tasks="$tasks $!"; i=$((i + 1))
done
worst=0
for task in $tasks; do wait $task || worst=$?; done
exit $worst
"""


@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake srun on the path, inside an allocation. Gives the file into which it writes what it was told."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(SRUN)
    (tmp_path / "bin" / "srun").chmod(0o755)
    for name, value in {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SRUN_TOLD": str(tmp_path / "told"),
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "99",
        "SLURMD_NODENAME": "gpu-07",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "told"


def test_ranks_under_srun_train_together(make_job: MakeJob, data: Path, tmp_path: Path, srun: Path) -> None:
    """The real trainer, on gloo."""
    tiny = {"model": {"layers": 2, "dim": 32, "heads": 2, "kv_heads": 1, "vocab_size": 320}, "train.batch_tokens": 512}
    settings = {**tiny, "data.path": str(data), "train.iterations": 2, "train.seq_len": 32, "train.warmup_steps": 0}
    more = {"eval.seq_len": 32, "eval.stride": 0, "eval.batch_tokens": 1024, "train.device": "cpu"}
    job = make_job({**settings, **more})
    shared = LaunchSettings(tmp_path / "run", Machine(cpus=2, nproc=2, launcher="srun"))
    layout = RunLayout(shared.run_root)
    write_job(job, layout)
    follow_job(job, shared, lambda _: None)
    record = json.loads(layout.job(job.job_id).exit.read_text())
    assert record["code"] == 0, layout.job(job.job_id).log.read_text()[-2000:]
    result = TrialResult.model_validate_json(layout.trial(job.trials[0].trial_id).result.read_bytes())
    assert result.world_size == 2
    options = srun.read_text().split(" sh -c ")[0].split()
    assert {"--nodes=1", "--ntasks=2", "--nodelist=gpu-07", "--cpus-per-task=1", "--overlap"} <= set(options)


@pytest.mark.usefixtures("srun")
def test_a_task_sees_the_gpus_that_ray_gave_and_its_rank(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    job = make_job()
    shared = LaunchSettings(tmp_path / "run", Machine(gpus=2, cpus=2, nproc=2, launcher="srun"), PLAIN)
    write_job(job, RunLayout(shared.run_root))
    follow_job(job, shared, lambda _: None)
    log = RunLayout(shared.run_root).job(job.job_id).log.read_text()
    assert log.count("CUDA_VISIBLE_DEVICES 4,5") == 2
    assert ", rank 0, " in log
    assert ", rank 1, " in log


def test_srun_outside_an_allocation_is_the_users_error(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    job = make_job()
    shared = LaunchSettings(tmp_path / "run", Machine(launcher="srun"), PLAIN)
    layout = RunLayout(shared.run_root)
    write_job(job, layout)
    follow_job(job, shared, lambda _: None)
    failure = json.loads(layout.job(job.job_id).failure.read_text())
    assert failure["kind"] == "user_error"
    assert "this node is in no Slurm allocation" in failure["reason"]
    assert layout.job(job.job_id).exit.exists()


STALE = {
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR",
    "MASTER_PORT", "TORCHELASTIC_RUN_ID", "RAY_JOB_ID", "PGRAY_JOB_TOKEN", "SLURM_PROCID", "SLURM_NTASKS", "PMI_RANK",
    "PMIX_RANK", "OMPI_COMM_WORLD_RANK",
}  # fmt: skip


@pytest.mark.parametrize("launcher", ["torchrun", "srun", "plain"])
def test_nothing_of_an_outer_launcher_is_left(launcher: str, tmp_path: Path) -> None:
    machine = Machine(cpus=8, nproc=1 if launcher == "plain" else 2, launcher=launcher)  # type: ignore[arg-type]
    shared = LaunchSettings(tmp_path, machine, code=Path("/frozen"))
    inherited = {
        **dict.fromkeys(STALE, "7"),
        "HOME": "/h",
        "SLURM_JOB_ID": "5",
        "PYTHONPATH": "/a",
        "NCCL_DEBUG": "INFO",
    }
    kept = environment(inherited, shared, NodeRendezvous(rank=1, meeting="10.0.0.1:29"))
    own = (
        {"MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK"} if launcher == "srun" else set()
    )
    assert STALE & set(kept) == own
    assert (kept["HOME"], kept["NCCL_DEBUG"], kept["PYTHONPATH"]) == ("/h", "INFO", "/frozen:/a")
    assert kept["OMP_NUM_THREADS"] == str(8 // machine.nproc)
    assert ("SLURM_JOB_ID" in kept) == (launcher == "srun")
    if launcher == "srun":
        assert [kept[name] for name in sorted(own)] == ["1", "2", "10.0.0.1", "29", "2"]


def test_a_plain_job_is_one_process(tmp_path: Path) -> None:
    told = command(
        LaunchSettings(tmp_path / "run", Machine(launcher="plain")), tmp_path / "job.json", NodeRendezvous(), "token"
    )
    assert told == [
        sys.executable,
        "-m",
        "trainer",
        "--config",
        str(tmp_path / "job.json"),
        "--out",
        str(tmp_path / "run"),
    ]


@pytest.fixture
def two_nodes(tmp_path: Path) -> LaunchSettings:
    return LaunchSettings(tmp_path / "run", Machine(nodes=2, cpus=1, nproc=1), PLAIN, grace_s=3.0)


def begin_both(job: Job, shared: LaunchSettings) -> tuple[NodeRunner, multiprocessing.process.BaseProcess]:
    """The first node's part held here, the second's by a process of its own, as an agent would."""
    layout = RunLayout(shared.run_root)
    write_job(job, layout)
    first = NodeRendezvous(0, "127.0.0.1", f"127.0.0.1:{free_port()}")
    arguments = (str(layout.job(job.job_id).job), shared.as_text(), asdict(replace(first, rank=1)), "token")
    agent = multiprocessing.get_context("spawn").Process(target=hold, args=arguments, daemon=True)
    agent.start()
    return NodeRunner(job, shared, first, "token"), agent


@pytest.mark.slow
def test_when_the_holder_of_the_second_node_dies_both_parts_end(make_job: MakeJob, two_nodes: LaunchSettings) -> None:
    job = make_job({"train.iterations": 6000})
    holder, agent = begin_both(job, two_nodes)
    records = RunLayout(two_nodes.run_root).job(job.job_id)
    wait_for(lambda: len(list(records.root.glob("log*.txt"))) == 2)
    agent.kill()
    wait_for(lambda: holder.is_over() and records.exit.exists())
    record = json.loads(records.exit.read_text())
    assert record["stop"] == "lifeline"
    assert [node["stop"] for node in record["nodes"]] == ["peer", "lifeline"]
    wait_for(lambda: not marked(two_nodes.run_root), 5)


@given(
    nodes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6),
    gpus=st.integers(0, 4),
    cpus=st.integers(1, 4),
    num_nodes=st.integers(1, 4),
)
def test_slots_are_what_can_be_placed_one_by_one(
    nodes: list[tuple[int, int]], gpus: int, cpus: int, num_nodes: int
) -> None:
    """Greedily giving each job the emptiest nodes is optimal, so it must give the same number."""
    machine = Machine(gpus=gpus, cpus=cpus, nodes=num_nodes)
    free = [list(node) for node in nodes]
    placed = 0
    while True:
        room = sorted(free, key=lambda node: min(node[0] // cpus, node[1] // gpus if gpus else 99), reverse=True)
        able = [node for node in room if node[0] >= cpus and node[1] >= gpus][:num_nodes]
        if len(able) < num_nodes:
            break
        placed += 1
        for node in able:
            node[0] -= cpus
            node[1] -= gpus
    assert Cluster(tuple((float(c), float(g)) for c, g in nodes)).slots(machine) == placed


def test_what_can_never_start_is_refused_with_the_reason() -> None:
    cluster = Cluster(((16.0, 8.0), (16.0, 8.0), (4.0, 0.0)))
    check_fits(cluster, Machine(gpus=8, cpus=16, nodes=2, nproc=8), "s.yaml")
    with pytest.raises(
        InputError, match=r"resources\.nodes: 3: 2 nodes of the cluster can hold a part of a job; lower it"
    ):
        check_fits(cluster, Machine(gpus=8, cpus=16, nodes=3, nproc=8), "s.yaml")
    with pytest.raises(InputError, match=r"resources\.gpus: 9: the cluster has 16 GPUs and 36 CPUs on 3 nodes"):
        check_fits(cluster, Machine(gpus=9, cpus=1), "s.yaml")

"""Launchers without Ray: a contract that every launcher keeps, the details of each, and a job on two nodes."""

import json
import multiprocessing
import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgray.execution import launchers
from pgray.execution.cluster import Cluster, check_fits
from pgray.execution.launchers.base import LaunchSettings, NodeRendezvous, find_launchers, free_port
from pgray.execution.multinode import run_to_end
from pgray.execution.node_runner import NodeRunner
from pgray.execution.worker import follow_job, write_job
from pgray.planning.planner import make_plan
from pgray.spec.sweep import Sweep
from pgray.store.exit_record import ExitRecord
from pgray.store.process_records import read_record
from tests.pgray.conftest import PLAIN, marked, wait_for
from trainer.errors import InputError
from trainer.records.job import Job
from trainer.records.layout import RunLayout
from trainer.records.results import TrialResult
from trainer.run.config import Machine

MakeJob = Callable[..., Job]
LAUNCHERS = find_launchers()

SRUN = """#!/bin/sh
# Replaces Slurm's srun: starts as many numbered tasks as asked for; its exit code is the worst of theirs.
echo "$@" > "$SRUN_ARGUMENTS"
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
    """Put a fake srun on the path, inside an allocation. Returns the file into which it writes its arguments."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(SRUN)
    (tmp_path / "bin" / "srun").chmod(0o755)
    for name, value in {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SRUN_ARGUMENTS": str(tmp_path / "arguments"),
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "99",
        "SLURMD_NODENAME": "gpu-07",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "arguments"


def test_ranks_under_srun_train_together(make_job: MakeJob, data: Path, tmp_path: Path, srun: Path) -> None:
    """Uses the real trainer, on gloo."""
    tiny = {"model": {"layers": 2, "dim": 32, "heads": 2, "kv_heads": 1, "vocab_size": 320}, "train.batch_tokens": 512}
    settings = {**tiny, "data.path": str(data), "train.iterations": 2, "train.seq_len": 32, "train.warmup_steps": 0}
    more = {"eval.seq_len": 32, "eval.stride": 0, "eval.batch_tokens": 1024, "train.device": "cpu"}
    job = make_job({**settings, **more})
    settings = LaunchSettings(tmp_path / "run", Machine(cpus=2, nproc=2, launcher="srun"))
    layout = RunLayout(settings.run_root)
    write_job(job, layout)
    follow_job(job, settings, lambda _: None)
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
    settings = LaunchSettings(tmp_path / "run", Machine(gpus=2, cpus=2, nproc=2, launcher="srun"), PLAIN)
    write_job(job, RunLayout(settings.run_root))
    follow_job(job, settings, lambda _: None)
    log = RunLayout(settings.run_root).job(job.job_id).log.read_text()
    assert log.count("CUDA_VISIBLE_DEVICES 4,5") == 2
    assert ", rank 0, " in log
    assert ", rank 1, " in log


def test_srun_outside_an_allocation_is_the_users_error(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    job = make_job()
    settings = LaunchSettings(tmp_path / "run", Machine(launcher="srun"), PLAIN)
    layout = RunLayout(settings.run_root)
    write_job(job, layout)
    follow_job(job, settings, lambda _: None)
    failure = json.loads(layout.job(job.job_id).failure.read_text())
    assert failure["kind"] == "user_error"
    assert "this node is not in a Slurm allocation" in failure["reason"]
    assert layout.job(job.job_id).exit.exists()


STALE = {
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR",
    "MASTER_PORT", "TORCHELASTIC_RUN_ID", "RAY_JOB_ID", "PGRAY_JOB_TOKEN", "SLURM_PROCID", "SLURM_NTASKS", "PMI_RANK",
    "PMIX_RANK", "OMPI_COMM_WORLD_RANK",
}  # fmt: skip


def machine_for(name: str) -> Machine:
    """Two ranks if the launcher can start them, else one."""
    two = Machine(cpus=8, nproc=2, launcher=name)
    return two if LAUNCHERS[name].problem(two) is None else Machine(cpus=8, launcher=name)


@pytest.mark.parametrize("name", LAUNCHERS)
@pytest.mark.usefixtures("srun")
class TestEveryLauncher:
    """The contract of `Launcher`. Later launchers are tested too, without a change here."""

    def test_a_job_runs_and_ends_with_every_rank(self, name: str, make_job: MakeJob, tmp_path: Path) -> None:
        job, machine = make_job(), machine_for(name)
        settings = LaunchSettings(tmp_path / "run", machine, PLAIN, grace_s=3.0)
        layout = RunLayout(settings.run_root)
        write_job(job, layout)
        follow_job(job, settings, lambda _: None)
        record = read_record(ExitRecord, layout.job(job.job_id).exit)
        log = layout.job(job.job_id).log.read_text()
        assert record is not None
        assert (record.code, record.stop, record.killed) == (0, None, []), log
        result = TrialResult.model_validate_json(layout.trial(job.trials[0].trial_id).result.read_bytes())
        assert result.world_size == machine.world_size
        assert sorted(map(int, re.findall(r", rank (\d+), ", log))) == list(range(machine.world_size))
        wait_for(lambda: not marked(settings.run_root), 5)

    def test_the_command_starts_the_trainer_with_the_job(self, name: str, tmp_path: Path) -> None:
        settings = LaunchSettings(tmp_path / "run", machine_for(name))
        command = LAUNCHERS[name].command(settings, tmp_path / "job.json", NodeRendezvous())
        arguments = ["-m", "trainer", "--config", str(tmp_path / "job.json"), "--out", str(tmp_path / "run")]
        assert command[-len(arguments) :] == arguments
        replaced = replace(settings, program=("/bin/other", "x"))
        command = LAUNCHERS[name].command(replaced, tmp_path / "job.json", NodeRendezvous())
        assert command[-6:] == ["/bin/other", "x", *arguments[2:]]

    def test_nothing_of_an_outer_launcher_is_left(self, name: str, tmp_path: Path) -> None:
        machine, launcher = machine_for(name), LAUNCHERS[name]
        settings = LaunchSettings(tmp_path, machine, code=Path("/snapshot"))
        inherited = {**dict.fromkeys(STALE, "stale"), "HOME": "/h", "PYTHONPATH": "/a", "NCCL_DEBUG": "INFO"}
        kept = launcher.environment(inherited, settings, NodeRendezvous(rank=1, endpoint="10.0.0.1:29"))
        assert "stale" not in kept.values()
        assert (kept["HOME"], kept["NCCL_DEBUG"], kept["PYTHONPATH"]) == ("/h", "INFO", "/snapshot:/a")
        assert kept["OMP_NUM_THREADS"] == str(8 // machine.nproc)
        assert kept["CUDA_VISIBLE_DEVICES"] == ""

    def test_one_rank_is_always_possible(self, name: str) -> None:
        assert LAUNCHERS[name].problem(Machine(launcher=name)) is None


TOY = """
from pgray.execution.launchers.plain import Plain

class Toy(Plain):
    name = "toy"
"""


def test_a_new_launcher_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    sweep = Sweep.from_text("name: s\npreset: cpu-smoke\nseeds: [1]\narms: {a: {}}\nlauncher: toy")
    with pytest.raises(InputError, match="launcher: toy: must be one of: plain, srun, torchrun"):
        make_plan(sweep, reads_data=False)
    monkeypatch.setattr(launchers, "__path__", [*launchers.__path__, str(tmp_path)])
    assert list(find_launchers()) == ["plain", "srun", "torchrun", "toy"]
    assert make_plan(sweep, reads_data=False).sweep.machine.launcher == "toy"


def test_only_srun_keeps_the_allocation_and_sets_the_ranks_group(tmp_path: Path) -> None:
    own = {
        "GROUP_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29",
        "WORLD_SIZE": "2",
    }
    inherited, rendezvous = {"SLURM_JOB_ID": "5"}, NodeRendezvous(rank=1, endpoint="10.0.0.1:29")
    for name, launcher in LAUNCHERS.items():
        kept = launcher.environment(inherited, LaunchSettings(tmp_path, machine_for(name)), rendezvous)
        assert ("SLURM_JOB_ID" in kept) == (name == "srun")
        assert {key: kept[key] for key in own if key in kept} == (own if name == "srun" else {})


def test_a_plain_job_is_one_process(tmp_path: Path) -> None:
    settings = LaunchSettings(tmp_path / "run", Machine(launcher="plain"))
    command = LAUNCHERS["plain"].command(settings, tmp_path / "job.json", NodeRendezvous())
    assert command[:3] == [sys.executable, "-m", "trainer"]
    assert LAUNCHERS["plain"].problem(Machine(nproc=2)) == "starts one process, not 2 ranks; use torchrun"


def test_torchrun_meets_on_the_first_of_several_nodes(tmp_path: Path) -> None:
    settings = LaunchSettings(tmp_path, Machine(nodes=2, nproc=3))
    second = NodeRendezvous(1, "10.0.0.2", "10.0.0.1:29", "token")
    options = set(LAUNCHERS["torchrun"].command(settings, tmp_path / "job.json", second))
    assert {"--nnodes=2", "--nproc_per_node=3", "--rdzv-endpoint=10.0.0.1:29", "--rdzv-id=token"} <= options
    assert {"--rdzv-conf=is_host=0,join_timeout=300", "--local-addr=10.0.0.2"} <= options


@pytest.fixture
def two_nodes(tmp_path: Path) -> LaunchSettings:
    return LaunchSettings(tmp_path / "run", Machine(nodes=2, cpus=1, nproc=1), PLAIN, grace_s=3.0)


def start_both(job: Job, settings: LaunchSettings) -> tuple[NodeRunner, multiprocessing.process.BaseProcess]:
    """Run the first node here and the second from a separate process, as the actor of `PeerNodes` would."""
    layout = RunLayout(settings.run_root)
    write_job(job, layout)
    first = NodeRendezvous(0, "127.0.0.1", f"127.0.0.1:{free_port()}", "token")
    arguments = (str(layout.job(job.job_id).job), settings.to_json(), asdict(replace(first, rank=1)))
    peer = multiprocessing.get_context("spawn").Process(target=run_to_end, args=arguments, daemon=True)
    peer.start()
    return NodeRunner(job, settings, first), peer


@pytest.mark.slow
def test_when_the_process_that_runs_the_second_node_dies_both_nodes_end(
    make_job: MakeJob, two_nodes: LaunchSettings
) -> None:
    job = make_job({"train.iterations": 6000})
    runner, peer = start_both(job, two_nodes)
    records = RunLayout(two_nodes.run_root).job(job.job_id)
    wait_for(lambda: len(list(records.root.glob("log*.txt"))) == 2)
    peer.kill()
    wait_for(lambda: runner.is_over() and records.exit.exists())
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
def test_slots_is_the_number_of_jobs_that_can_be_placed_one_by_one(
    nodes: list[tuple[int, int]], gpus: int, cpus: int, num_nodes: int
) -> None:
    """Giving each job the emptiest nodes is optimal, so it must lead to the same number."""
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


def test_a_job_that_can_never_start_is_refused_with_the_reason() -> None:
    cluster = Cluster(((16.0, 8.0), (16.0, 8.0), (4.0, 0.0)))
    check_fits(cluster, Machine(gpus=8, cpus=16, nodes=2, nproc=8), "s.yaml")
    with pytest.raises(
        InputError, match=r"resources\.nodes: 3: only 2 nodes of the cluster can run such a job; lower it"
    ):
        check_fits(cluster, Machine(gpus=8, cpus=16, nodes=3, nproc=8), "s.yaml")
    with pytest.raises(InputError, match=r"resources\.gpus: 9: the cluster has 16 GPUs and 36 CPUs on 3 nodes"):
        check_fits(cluster, Machine(gpus=9, cpus=1), "s.yaml")

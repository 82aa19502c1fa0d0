"""A cluster of four nodes with eight GPUs each: checks the run folders that `tests/pgray/cluster_story.py` leaves."""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import results
from pgray.store.ledger import Ledger
from tests.pgray.conftest import marked
from trainer.records.layout import RunLayout

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[3]
ARMS = {f"a{i}": {"optim.matrix_lr": 0.02 + i / 1000} for i in range(23)} | {"long": {"optim.ns_steps": 20}}


def write_sweep(path: Path, data: Path, iterations: int, step: int, **more: Any) -> Path:
    settings = {"data.path": str(data), "model.vocab_size": 320, "train.iterations": iterations, "optim.ns_steps": step}
    path.write_text(json.dumps({"name": path.stem, "preset": "cpu-smoke", "set": settings, "seeds": [1], **more}))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Return the folder with both run folders."""
    folder = tmp_path_factory.mktemp("cluster")
    whole_node = {"resources": {"gpus": 8, "cpus": 1}, "nproc": 1, "launcher": "plain"}
    two_nodes = {"resources": {"gpus": 2, "cpus": 1, "nodes": 2}, "nproc": 2, "failures": {"retries": {"infra": 0}}}
    pair = {"whole": {}, "cut": {"train.iterations": 2000}}
    paths = [
        write_sweep(folder / "crowd.yaml", data, 20, 3, arms=ARMS, control="long", **whole_node),
        write_sweep(folder / "wide.yaml", data, 4, 1, arms=pair, **two_nodes),
    ]
    command = [sys.executable, "-m", "tests.pgray.cluster_story", str(folder), *map(str, paths)]
    with tempfile.TemporaryDirectory(
        prefix="r"
    ) as ray_folder:  # or every `ray.init()` on this machine would find this cluster
        # The user also has a token, which this cluster does not ask for.
        environment = {**os.environ, "RAY_TMPDIR": ray_folder, "RAY_AUTH_TOKEN": "of-another-cluster"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 3], done.stderr[-4000:]
    return folder


def job_of(run_root: Path, arm: str) -> Path:
    entries = Ledger(RunLayout(run_root).ledger).entries()
    (job_id,) = {entry.job_id for entry in entries if entry.arm == arm and entry.job_id}
    return RunLayout(run_root).job(job_id).root


def exit_of(job: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((job / "exit.json").read_text())
    return record


def test_a_node_holds_one_job_at_a_time_and_a_job_one_node(runs: Path) -> None:
    records = sorted(
        (exit_of(path.parent) for path in runs.glob("crowd/jobs/*/exit.json")),
        key=lambda record: (record["ray_node"], record["started_at"]),
    )
    by_node = [list(group) for _, group in itertools.groupby(records, key=lambda record: record["ray_node"])]
    assert len(by_node) == 4
    for on_node in by_node:
        assert all(one["ended_at"] <= later["started_at"] for one, later in itertools.pairwise(on_node))
    assert gpus_seen(runs.glob("crowd/jobs/*/log.txt")) == {"0,1,2,3,4,5,6,7"}


def gpus_seen(logs: Iterable[Path]) -> set[str]:
    return set(re.findall("CUDA_VISIBLE_DEVICES (.*)", "".join(log.read_text() for log in logs)))


def test_the_job_of_a_removed_node_runs_again_on_another(runs: Path) -> None:
    root = runs / "crowd"
    trials = results.load(root)
    assert (trials["status"] == "finished").all()
    assert len(trials) == 24
    failed = [entry for entry in Ledger(RunLayout(root).ledger).entries() if entry.state == "failed"]
    assert [entry.failure_kind for entry in failed] == ["infra"]
    assert failed[0].reason is not None
    assert failed[0].reason.startswith("the job's Ray worker died: ")
    assert failed[0].arm == "long"
    removed = (root / "removed_node").read_text()
    nodes = [
        json.loads(path.read_text())["ray_node"]
        for path in sorted(root.glob(f"jobs/{failed[0].train_fingerprint}-*/launch.json"))
    ]
    assert len(nodes) == 2
    assert nodes[0] == removed != nodes[1]


def test_two_nodes_are_one_job(runs: Path) -> None:
    job = job_of(runs / "wide", "whole")
    record = exit_of(job)
    assert (record["code"], record["stop"], record["killed"]) == (0, None, [])
    assert [node["rank"] for node in record["nodes"]] == [0, 1]
    assert len({node["ray_node"] for node in record["nodes"]}) == 2
    logs = [job / "log.txt", job / "log-1.txt"]
    ranks = [set(map(int, re.findall(r", rank (\d), ", log.read_text()))) for log in logs]
    assert sorted(map(sorted, ranks)) == [[0, 1], [2, 3]]
    assert all(len(gpus.split(",")) == 2 for gpus in gpus_seen(logs))
    rows = results.load(runs / "wide").set_index("arm")
    assert rows.loc["whole", "world_size"] == 4


def test_when_one_of_two_torchrun_agents_dies_the_job_ends(runs: Path) -> None:
    record = exit_of(job_of(runs / "wide", "cut"))
    first, second = record["nodes"]
    assert second["code"] == -9
    assert first["stop"] == "peer" or first["code"] not in (0, None)
    assert record["log"] == "log-1.txt"
    row = results.load(runs / "wide").set_index("arm").loc["cut"]
    assert (row["status"], row["failure_kind"]) == ("failed", "infra")
    assert "killed by SIGKILL" in row["reason"]
    assert row["gpu_held_s"] == pytest.approx(4 * (record["ended_at"] - record["started_at"]))


def test_no_process_is_left(runs: Path) -> None:
    assert [process.cmdline() for name in ("crowd", "wide") for process in marked(runs / name)] == []

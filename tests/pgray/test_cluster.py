"""A cluster of four nodes with eight GPUs each: what stands in the run folders after `cluster_story.py`."""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import results
from pgray.ledger import Ledger
from tests.pgray.conftest import marked
from trainer.layout import RunLayout

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
ARMS = {f"a{i}": {"optim.matrix_lr": 0.02 + i / 1000} for i in range(23)} | {"long": {"optim.ns_steps": 20}}
TWO_NODES = {"resources": {"gpus": 2, "cpus": 1, "nodes": 2}, "nproc": 2, "arms": {"a": {}}}


def write_sweep(path: Path, data: Path, iterations: int, step: int, **more: Any) -> Path:
    settings = {"data.path": str(data), "model.vocab_size": 320, "train.iterations": iterations, "optim.ns_steps": step}
    path.write_text(json.dumps({"name": path.stem, "preset": "cpu-smoke", "set": settings, "seeds": [1], **more}))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The run folders of the story."""
    folder = tmp_path_factory.mktemp("cluster")
    whole_node = {"gpus": 8, "cpus": 1}
    paths = [
        write_sweep(
            folder / "crowd.yaml",
            data,
            20,
            3,
            resources=whole_node,
            nproc=1,
            launcher="plain",
            arms=ARMS,
            control="long",
        ),
        write_sweep(folder / "pair.yaml", data, 4, 1, **TWO_NODES),
        write_sweep(folder / "cut.yaml", data, 2000, 1, **TWO_NODES, failures={"retries": {"infra": 0}}),
    ]
    command = [sys.executable, "-m", "tests.pgray.cluster_story", str(folder), *map(str, paths)]
    with tempfile.TemporaryDirectory(prefix="r") as ray_folder:  # or every `ray.init()` of this machine would find it
        environment = {**os.environ, "RAY_TMPDIR": ray_folder}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"crowd": 0, "pair": 0, "cut": 3}, done.stderr[-4000:]
    return folder


def exits(run_root: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in run_root.glob("jobs/*/exit.json")]


def test_a_node_holds_one_job_at_a_time_and_a_job_one_node(runs: Path) -> None:
    records = sorted(exits(runs / "crowd"), key=lambda record: record["started_at"])
    assert len({record["ray_node"] for record in records}) == 4
    for _, group in itertools.groupby(sorted(records, key=lambda r: r["ray_node"]), key=lambda r: r["ray_node"]):
        for one, next_one in itertools.pairwise(group):
            assert one["ended_at"] <= next_one["started_at"]
    gpus = {
        line for log in runs.glob("crowd/jobs/*/log.txt") for line in log.read_text().splitlines() if "CUDA_" in line
    }
    assert gpus == {"CUDA_VISIBLE_DEVICES 0,1,2,3,4,5,6,7"}


def test_when_a_node_goes_its_job_is_run_on_another(runs: Path) -> None:
    root = runs / "crowd"
    trials = results.load(root)
    assert (trials["status"] == "finished").all()
    assert len(trials) == 24
    failed = [entry for entry in Ledger(RunLayout(root).ledger).entries() if entry.state == "failed"]
    assert [entry.failure_kind for entry in failed] == ["infra"]
    assert failed[0].reason is not None
    assert failed[0].reason.startswith("its Ray worker died before the job was over: ")
    assert failed[0].arm == "long"
    gone = (root / "taken_away").read_text()
    nodes = [
        json.loads(path.read_text())["ray_node"]
        for path in sorted(root.glob(f"jobs/{failed[0].train_fingerprint}-*/launch.json"))
    ]
    assert len(nodes) == 2
    assert nodes[0] == gone != nodes[1]


def test_two_nodes_are_one_job(runs: Path) -> None:
    (record,) = exits(runs / "pair")
    assert (record["code"], record["stop"], record["killed"]) == (0, None, [])
    assert [node["rank"] for node in record["nodes"]] == [0, 1]
    assert len({node["ray_node"] for node in record["nodes"]}) == 2
    logs = {path.name: path.read_text() for path in runs.glob("pair/jobs/*/log*.txt")}
    assert set(logs) == {"log.txt", "log-1.txt"}
    ranks = {rank for rank in range(4) if any(f", rank {rank}, " in text for text in logs.values())}
    assert ranks == {0, 1, 2, 3}
    assert all(text.count("CUDA_VISIBLE_DEVICES 0,1") == 2 for text in logs.values())
    assert results.load(runs / "pair")["world_size"].tolist() == [4]


def test_when_one_of_two_agents_dies_the_job_ends(runs: Path) -> None:
    (record,) = exits(runs / "cut")
    first, second = record["nodes"]
    assert second["code"] == -9
    assert first["stop"] == "peer" or first["code"] not in (0, None)
    assert record["log"] == "log-1.txt"
    (row,) = results.load(runs / "cut").to_dict("records")
    assert (row["status"], row["failure_kind"]) == ("failed", "infra")
    assert "killed by SIGKILL" in row["reason"]
    assert row["gpu_held_s"] > 0


def test_nothing_is_left(runs: Path) -> None:
    assert [process.cmdline() for name in ("crowd", "pair", "cut") for process in marked(runs / name)] == []

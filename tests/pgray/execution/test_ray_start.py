"""The commands of docs/clusters.md with real `ray start` processes: a head and a second node, which ask for a token."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import results
from pgray.execution import processes
from pgray.execution.launchers.base import free_port
from tests.pgray.conftest import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[3]
RAY = Path(sys.executable).with_name("ray")
Run = Callable[[str, Path], "subprocess.CompletedProcess[str]"]


def documented() -> tuple[str, str, str]:
    """The three commands that start a cluster: for the token, the head and the other nodes."""
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/clusters.md").read_text(), re.S)
    token, head, node, run = [line.split("#")[0].strip() for line in block.splitlines()]
    assert run.startswith("pgray run SWEEP --address HEAD:6379")
    return token, head, node


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, Path]]:
    """Start a cluster. Yields its address, and the home folder of the user who has its token."""
    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp", ignore_cleanup_errors=True) as folder:
        home, temporary, port = Path(folder, "home"), Path(folder, "ray"), free_port()
        home.mkdir()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"HOME": str(home)}
        small = " --block --num-cpus=1 --num-gpus=2 --object-store-memory=80000000"
        lines = [line.replace("HEAD:6379", f"127.0.0.1:{port}").replace("6379", str(port)) for line in documented()]
        lines[1] += f"{small} --include-dashboard=false --node-ip-address=127.0.0.1 --temp-dir={temporary}"
        lines[1] += " --min-worker-port=0 --max-worker-port=0"
        lines[2] += f"{small} --node-ip-address=127.0.0.1 --min-worker-port=0 --max-worker-port=0"
        started: list[subprocess.Popen[bytes]] = []
        try:
            for line in lines:
                words = shlex.split(line)
                own = dict(word.split("=", 1) for word in words if re.match(r"RAY_\w+=", word))
                command = [str(RAY), *words[words.index("ray") + 1 :]]
                with Path(folder, f"{len(started)}.txt").open("wb") as output:
                    started.append(subprocess.Popen(command, env={**environment, **own}, stdout=output, stderr=output))
                text = Path(folder, f"{len(started) - 1}.txt")
                wait_for(lambda s=started[-1], t=text: s.poll() is not None or b"Ray runtime started" in t.read_bytes())
                assert started[0].wait() == 0
                assert started[-1].poll() in (None, 0), text.read_text()
            yield f"127.0.0.1:{port}", home
        finally:
            for process in started[1:]:
                children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
                for each in (*children, process):
                    each.kill()
                process.wait()
            processes.kill_all(lambda: processes.of_ray(temporary))


@pytest.fixture
def run(cluster: tuple[str, Path], tmp_path: Path) -> Run:
    def start(sweep: str, home: Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "tests.pgray.drive", sweep, "--runs", str(tmp_path / "runs")]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"HOME": str(home)}
        return subprocess.run(
            [*command, "--address", cluster[0]],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip

    return start


def test_two_nodes_run_a_sweep(
    write_sweep: Callable[..., Path], run: Run, cluster: tuple[str, Path], tmp_path: Path
) -> None:
    path = write_sweep(arms="  int8: {}\n  int6: {optim.matrix_lr: 0.03}\n", seeds="[1]", set="optim.ns_steps: 20")
    path.write_text(path.read_text() + "resources: {gpus: 2, cpus: 1}\nnproc: 1\n")
    done = run(str(path), cluster[1])
    assert done.returncode == 0, done.stderr
    assert "2 at a time on 4 GPUs and 2 CPUs on 2 nodes" in done.stderr
    assert not re.search(r"\.(?:cc|h):\d+|Ray runtime|WARNING", done.stderr)
    assert results.load(tmp_path / "runs" / "test")["status"].tolist() == ["finished"] * 2


def test_without_the_token_one_line_says_so(write_sweep: Callable[..., Path], run: Run, tmp_path: Path) -> None:
    done = run(str(write_sweep(seeds="[1]")), tmp_path)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "warning" not in line] == done.stderr.splitlines()[-1:]
    assert "the cluster asks for a token" in done.stderr
    assert not (tmp_path / "runs" / "test").exists()

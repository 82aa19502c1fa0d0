"""A sweep runs the code that was there when it was launched."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import results
from pgray.execution.code_snapshot import snapshot_code
from pgray.execution.ray_tune import worker_function
from pgray.scheduler.driver import run_sweep
from pgray.spec.sweep import Sweep
from tests.pgray.conftest import PLAIN, RecordedProgress
from trainer.records.files import write_sealed
from trainer.records.layout import RunLayout
from trainer.run.bundle import code_sha


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for package in ("trainer", "results", "pgray"):
        (tmp_path / "checkout" / package).mkdir(parents=True)
        (tmp_path / "checkout" / package / "__init__.py").write_text("")
    (tmp_path / "checkout" / "trainer" / "a.py").write_text("x = 1\n")
    return tmp_path / "checkout"


def test_the_folder_is_named_after_its_content(checkout: Path, tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    first = snapshot_code(layout, checkout)
    assert (first / "trainer" / "a.py").read_text() == "x = 1\n"
    (checkout / "trainer" / "__pycache__").mkdir()
    (checkout / "trainer" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")
    assert snapshot_code(layout, checkout) == first
    (checkout / "trainer" / "a.py").write_text("x = 2\n")
    second = snapshot_code(layout, checkout)
    assert second != first
    assert (first / "trainer" / "a.py").read_text() == "x = 1\n"
    (checkout / "trainer" / "a.py").rename(checkout / "trainer" / "b.py")
    assert snapshot_code(layout, checkout) not in (first, second)
    assert not list((tmp_path / "run" / "code").glob(".*"))


def test_an_edited_snapshot_is_made_again(checkout: Path, tmp_path: Path) -> None:
    folder = snapshot_code(RunLayout(tmp_path / "run"), checkout)
    (folder / "trainer" / "a.py").write_text("x = 3\n")
    (folder.parent / ".new-half").mkdir()  # left by a kill
    assert snapshot_code(RunLayout(tmp_path / "run"), checkout) == folder
    assert (folder / "trainer" / "a.py").read_text() == "x = 1\n"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_snapshot_of_a_snapshot_is_the_same_folder(tmp_path: Path) -> None:
    """So that a sweep can be continued with the code that it was started with."""
    layout = RunLayout(tmp_path / "run")
    folder = snapshot_code(layout)
    assert snapshot_code(layout, folder) == folder


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_a_worker_imports_the_project_from_the_snapshot(tmp_path: Path) -> None:
    import ray

    folder = snapshot_code(RunLayout(tmp_path / "run"))
    with (folder / "pgray/execution/worker.py").open("a") as file:
        file.write("\n\ndef run_job(*_):\n    raise RuntimeError(f'this is {__file__}')\n")
    remote = ray.remote(max_calls=1)  # in a new process
    with pytest.raises(RuntimeError, match=f"this is {folder}/pgray/execution/worker.py"):
        ray.get(remote(worker_function(str(folder), "")).remote({"job_id": "j"}))
    with pytest.raises(FileNotFoundError, match="--runs must be a folder that every node sees"):
        ray.get(remote(worker_function(str(folder) + "x", "")).remote({"job_id": "j"}))


PROGRAM = """
import runpy, sys, trainer, pgray
print("runs from", trainer.__file__, pgray.__file__, flush=True)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
def test_a_job_runs_from_the_snapshot_and_rows_name_its_code(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    path = write_sweep(arms="  int8: {}\n", seeds="[1]")
    command = (PLAIN[0], "-c", PROGRAM, PLAIN[1])
    root = run_sweep(Sweep.from_yaml(path), tmp_path / "runs", trainer_command=command).run_root
    provenance = json.loads((root / "provenance.json").read_text())
    folder = root / provenance["code"]
    assert provenance["code_sha"] == code_sha()
    (launched,) = root.glob("jobs/*/launch.json")
    assert json.loads(launched.read_text())["code"] == str(folder)
    log = launched.with_name("log.txt").read_text()
    assert f"runs from {folder}/trainer/__init__.py {folder}/pgray/__init__.py" in log
    assert results.load(root)["code_sha"].tolist() == [code_sha()]

    result = next(root.glob("trials/*/result.json"))
    written = json.loads(result.read_text())
    del written["own_sha256"]
    write_sealed(result, written | {"code_sha": "0123456789ab"})
    plan = Sweep.from_text(path.read_text().replace("[1]", "[1, 2]"))
    reporter = RecordedProgress()
    run_sweep(plan, tmp_path / "runs", trainer_command=PLAIN, reporter=reporter)
    (warning,) = (line for line in reporter.lines if "other code" in line)
    assert warning.startswith("warning: 1 of 1 finished trials were made by other code (0123456789ab)")
    assert sorted(results.load(root)["code_sha"]) == sorted(["0123456789ab", code_sha()])

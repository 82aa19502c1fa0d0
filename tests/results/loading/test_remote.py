"""Remote run folders, by fsspec's in-memory file system: the same rows, and no weights copied."""

import posixpath
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest

import results
from tests.results.synthetic import Run
from trainer.errors import InputError
from trainer.records.files import write_text


@pytest.fixture
def store(tmp_path: Path) -> Iterator[fsspec.AbstractFileSystem]:
    """memory://runs with two runs, their weights, and a folder that is no run."""
    files = fsspec.filesystem("memory")
    for name in ("qat-a", "qat-b"):
        run = Run(tmp_path / name, f"name: {name}\ncontrol: int8\n")
        run.finish("int8", 1, 2.5)
        run.finish("int6", 1, 2.6)
        write_text(run.layout.trained("fp1").events, '{"event": "val", "step": 3, "raw_bpb": 2.0}\n')
        write_text(run.layout.trained("fp1").weights("last"), "weights")
        write_text(run.layout.trial("int8-s1-0").artifact, "artifact")
        files.put(str(run.layout.root), f"/runs/{name}", recursive=True)
    files.pipe("/runs/notes/readme.txt", b"no run")
    yield files
    files.rm("/runs", recursive=True)


@pytest.mark.usefixtures("store")
def test_the_rows_are_those_of_the_folder(tmp_path: Path) -> None:
    there = results.load("memory://runs/qat-a")
    pd.testing.assert_frame_equal(there, results.load(tmp_path / "qat-a"))
    assert there.attrs["control"] == "int8"
    assert (
        results.curves("memory://runs/qat-a")["val_bpb"].tolist()
        == results.curves(tmp_path / "qat-a")["val_bpb"].tolist()
    )
    copied = {path.name for path in Path(there.attrs["runs"][0]).rglob("*") if path.is_file()}
    assert copied == {"sweep.yaml", "ledger.jsonl", "result.json", "events.jsonl"}


@pytest.mark.usefixtures("store")
def test_patterns_and_local_folders_mix(tmp_path: Path) -> None:
    assert len(results.load("memory://runs/*")) == 4
    assert len(results.load(["memory://runs/qat-b", tmp_path / "qat-a"])) == 4


def test_a_later_change_of_the_remote_folder_is_seen(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    assert len(results.load("memory://runs/qat-a")) == 2
    run = Run(tmp_path / "qat-a", "name: qat-a\n")
    run.finish("int4", 1, 2.7)
    store.put(str(run.layout.root), posixpath.dirname("/runs/qat-a") + "/", recursive=True)
    assert len(results.load("memory://runs/qat-a")) == 3


@pytest.mark.parametrize(
    "address", ["memory://nothing/here", "memory://runs/z*", "memory://runs/notes", "nosuch://bucket/run"]
)
@pytest.mark.usefixtures("store")
def test_an_address_without_a_run_is_refused(address: str) -> None:
    with pytest.raises(InputError) as caught:
        results.load(address)
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)

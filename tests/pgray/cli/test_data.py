"""Checks of the data on the command line: `data check`, and what plan, run and table do with its findings."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pgray.cli.entry import main
from trainer.data.shards import map_tokens, write_shard
from trainer.records.files import read_json, write_json
from trainer.records.layout import RunLayout
from trainer.records.ledger import LedgerEntry

VAL, TRAIN = "fineweb_val_000000.bin", "fineweb_train_000000.bin"


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    """A copy of the data that a test may damage."""
    return Path(shutil.copytree(data, tmp_path / "copy"))


def _hidden_validation(folder: Path) -> str:
    tokens = np.array(map_tokens(folder / TRAIN))
    tokens[3001:3501] = map_tokens(folder / VAL)[700:1200]
    write_shard(folder / TRAIN, tokens)
    return f"{TRAIN}: contains 500 tokens of validation text (25.00% of it, the first at validation token 700)"


def _outside_the_vocabulary(folder: Path) -> str:
    tokens = np.array(map_tokens(folder / TRAIN))
    tokens[5000] = 9999
    write_shard(folder / TRAIN, tokens)
    return f"{TRAIN}: token 5000 (byte offset 11024) is 9999, outside the vocabulary of 320"


def _train_is_validation(folder: Path) -> str:
    shutil.copy(folder / VAL, folder / "fineweb_train_000001.bin")
    return f"{VAL}: holds the same tokens as fineweb_train_000001.bin: training would see the validation text"


@pytest.mark.parametrize("attack", [_hidden_validation, _outside_the_vocabulary, _train_is_validation])
def test_plan_and_run_refuse_what_data_check_refuses(
    copy: Path,
    write_sweep: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    attack: Callable[[Path], str],
) -> None:
    sweep = str(write_sweep())
    problem = attack(copy)
    for verb in ("plan", "run"):
        assert main([verb, sweep, "--set", f"data.path={copy}", "--runs", str(tmp_path / "runs")]) == 2
        captured = capsys.readouterr()
        assert f": arm int8: data.path: {copy}/{problem}" in captured.err
        assert captured.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    assert main(["data", "check", str(copy)]) == 2
    assert f"problem: {copy}/{problem}" in capsys.readouterr().out


def test_warnings_are_printed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard(copy / TRAIN, np.random.default_rng(0).integers(4, 320, 9000))
    assert main(["data", "check", str(copy)]) == 0
    assert f"warning: {copy / TRAIN}: of its first 1024 tokens " in capsys.readouterr().out


def test_the_table_repeats_the_warnings_of_the_launch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = RunLayout(tmp_path / "run")
    about = {"at": 0.0, "sweep": "run", "arm": "a", "seed": 1, "trial_id": "a-1", "train_fingerprint": "f"}
    layout.root.mkdir()
    layout.ledger.write_text(LedgerEntry(**about, state="queued").model_dump_json() + "\n")
    write_json(layout.provenance, {"data_warnings": ["data/x: odd"]})
    assert main(["table", str(layout.root), "--wide"]) == 0
    assert "note: data: data/x: odd" in capsys.readouterr().out


@pytest.mark.usefixtures("executor")
def test_a_launch_records_its_warnings(copy: Path, write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    write_shard(copy / TRAIN, np.random.default_rng(0).integers(4, 320, 9000))
    sweep, runs = str(write_sweep(arms="  int8: {}\n", seeds="[1]")), tmp_path / "runs"
    main(["run", sweep, "--set", f"data.path={copy}", "--runs", str(runs)])
    (warning,) = read_json(RunLayout(runs / "test").provenance)["data_warnings"]
    assert warning.startswith(f"{copy / TRAIN}: of its first 1024 tokens ")
    assert warning in RunLayout(runs / "test").table("md").read_text().replace("\\", "")

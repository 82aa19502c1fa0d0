"""A token outside the vocabulary stops a job with its place, whichever rank reads it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.conftest import VOCAB_SIZE, job_of, write_job
from trainer.__main__ import main
from trainer.config import Config
from trainer.data.shards import HEADER_BYTES, map_tokens, write_shard
from trainer.data.stream import TokenStream
from trainer.errors import DataError
from trainer.evaluation.scoring import Validation
from trainer.records.files import read_json
from trainer.records.layout import RunLayout
from trainer.run.dist import DistContext


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


def _damage(path: Path, position: int) -> None:
    tokens = np.array(map_tokens(path))
    tokens[position] = VOCAB_SIZE
    write_shard(path, tokens)


def test_the_reader_names_the_token_in_the_second_shard(tiny: Callable[..., Config], data: Path) -> None:
    shard = data / "fineweb_train_000001.bin"
    _damage(shard, 500)  # token 30,501 of the split: in the 60th batch of 512, read by the second of two ranks
    train = tiny().train
    streams = [TokenStream(data, train, DistContext(r, 2, torch.device("cpu")), VOCAB_SIZE) for r in range(2)]
    for stream in streams:
        stream.batch(58)  # the reader is a step ahead, and must not fail before its batch is used
    streams[0].batch(59)
    with pytest.raises(DataError) as caught:
        streams[1].batch(59)
    for stream in streams:
        stream.close()
    place = f"token 500 (byte offset {HEADER_BYTES + 1000})"
    assert str(caught.value).startswith(f"{shard}: {place} is 400, outside the vocabulary of 400: use the tokenizer")


def test_validation_names_the_token(data: Path, alone: DistContext) -> None:
    _damage(data / "fineweb_val_000000.bin", 1999)
    with pytest.raises(DataError, match=r"fineweb_val_000000.bin: token 1999 .* is 400, outside the vocabulary of 400"):
        Validation(data, "", alone)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_job_fails_with_a_data_error(
    tiny: Callable[..., Config], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    _damage(data / f"fineweb_{split}_000000.bin", 700)
    job = job_of(tiny(**{"data.path": str(data)}))
    assert main(["--config", str(write_job(tmp_path / "job.json", job)), "--out", str(tmp_path / "out")]) == 2
    failure = read_json(RunLayout(tmp_path / "out").job("job").failure)
    assert failure["kind"] == "data_error"
    assert "token 700 (byte offset 2424) is 400" in failure["reason"]
    assert "Traceback" not in capsys.readouterr().err

"""The shard format: round trip, errors for broken shards, and the identity of a data folder."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.data.shards import (
    HEADER_BYTES,
    SAMPLE_BYTES,
    data_sha,
    find_tokenizer,
    list_shards,
    map_tokens,
    read_num_tokens,
    tokenizer_sha,
    write_shard,
)
from trainer.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    for name, num_tokens in (("train_000000", 3000), ("train_000001", 2000), ("val_000000", 1000)):
        write_shard(tmp_path / f"fineweb_{name}.bin", rng.integers(0, 1024, num_tokens))
    (tmp_path / "a.model").write_bytes(b"model")
    return tmp_path


@given(tokens=st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=300))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_round_trip(tmp_path: Path, tokens: list[int]) -> None:
    path = tmp_path / "x.bin"
    write_shard(path, tokens)
    mapped = map_tokens(path)
    assert mapped.dtype == np.uint16
    assert mapped.tolist() == tokens
    assert not mapped.flags.writeable
    assert read_num_tokens(path) == len(tokens)


def test_bytes_on_disk_are_the_challenge_format(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    write_shard(path, [1, 258, 65535])
    raw = path.read_bytes()
    assert raw[:12] == bytes.fromhex("88d83401 01000000 03000000")
    assert raw[12:1024] == bytes(1012)
    assert raw[1024:] == bytes.fromhex("0100 0201 ffff")


@pytest.mark.parametrize("tokens", [[-1], [65536], [[1, 2]], [0.5]])
def test_write_refuses_what_uint16_cannot_hold(tmp_path: Path, tokens: list[object]) -> None:
    with pytest.raises(ValueError, match="tokens must be"):
        write_shard(tmp_path / "x.bin", tokens)  # type: ignore[arg-type]
    assert not (tmp_path / "x.bin").exists()


def _header(*values: int) -> bytes:
    return np.array([*values, *[0] * (256 - len(values))], dtype="<i4").tobytes()


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", "0 bytes, shorter than the 1024-byte shard header"),
        (b"x" * 100, "100 bytes, shorter than"),
        (_header(7, 1, 2) + bytes(4), "magic is 7, not 20240520"),
        (_header(20240520, 2, 2) + bytes(4), "shard version is 2, not 1"),
        (_header(20240520, 1, 0), "header says 0 tokens"),
        (_header(20240520, 1, -4), "header says -4 tokens"),
        (_header(20240520, 1, 3) + bytes(4), "truncated: header says 3 tokens = 1030 bytes, file has 1028 bytes"),
        (_header(20240520, 1, 1) + bytes(4), "too long: header says 1 tokens = 1026 bytes, file has 1028 bytes"),
    ],
)
def test_the_error_for_a_broken_shard_names_the_problem(tmp_path: Path, raw: bytes, found: str) -> None:
    path = tmp_path / "fineweb_val_000000.bin"
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        map_tokens(path)
    assert str(caught.value).startswith(f"{path}: {found}")
    assert caught.value.fix
    assert "\n" not in str(caught.value)


def test_the_error_for_missing_data_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such shard"):
        read_num_tokens(tmp_path / "x.bin")
    with pytest.raises(DataError, match=r"nowhere: no such data folder: .*pgray data build"):
        list_shards(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match=r"no fineweb_val_\*\.bin in this folder: .*pgray data fetch"):
        list_shards(tmp_path, "val")


def test_shards_are_listed_in_name_order(folder: Path) -> None:
    assert [path.name for path in list_shards(folder, "train")] == [
        "fineweb_train_000000.bin",
        "fineweb_train_000001.bin",
    ]
    assert [path.name for path in list_shards(folder, "val")] == ["fineweb_val_000000.bin"]


def test_identity_does_not_depend_on_file_names(folder: Path) -> None:
    before = data_sha(folder)
    (folder / "fineweb_train_000001.bin").rename(folder / "fineweb_train_000009.bin")
    assert data_sha(folder) == before


def test_identity_changes_with_order_tokens_and_split(folder: Path) -> None:
    shas = {data_sha(folder)}
    first, second = list_shards(folder, "train")
    first.rename(folder / "swap")
    second.rename(first)
    (folder / "swap").rename(second)
    shas.add(data_sha(folder))  # order
    raw = bytearray(first.read_bytes())
    raw[HEADER_BYTES] ^= 1
    first.write_bytes(raw)
    shas.add(data_sha(folder))  # one bit of the first token
    raw[-1] ^= 1
    first.write_bytes(raw)
    shas.add(data_sha(folder))  # one bit of the last token
    first.rename(folder / "fineweb_val_000001.bin")
    shas.add(data_sha(folder))  # split
    assert len(shas) == 5


def test_identity_samples_head_and_tail(tmp_path: Path) -> None:
    tokens = np.zeros(3 * SAMPLE_BYTES, dtype=np.uint16)
    write_shard(tmp_path / "fineweb_val_000000.bin", [1])
    path = tmp_path / "fineweb_train_000000.bin"
    write_shard(path, tokens)
    before = data_sha(tmp_path)
    tokens[len(tokens) // 2] = 1
    write_shard(path, tokens)
    assert data_sha(tmp_path) == before  # documented: the identity samples
    write_shard(path, tokens[:-1])
    assert data_sha(tmp_path) != before


def test_find_tokenizer(folder: Path) -> None:
    assert find_tokenizer(folder) == folder / "a.model"
    assert find_tokenizer(folder, str(folder / "a.model")) == folder / "a.model"
    with pytest.raises(DataError, match=r"b\.model: no such tokenizer: set data\.tokenizer"):
        find_tokenizer(folder, str(folder / "b.model"))
    (folder / "b.model").write_bytes(b"other")
    with pytest.raises(DataError, match=r"several tokenizers \(a\.model, b\.model\): set data\.tokenizer"):
        find_tokenizer(folder)
    for model in folder.glob("*.model"):
        model.unlink()
    with pytest.raises(DataError, match=r"no \*\.model in this folder"):
        find_tokenizer(folder)


def test_tokenizer_sha(folder: Path) -> None:
    assert tokenizer_sha(folder / "a.model") == hashlib.sha256(b"model").hexdigest()
    with pytest.raises(DataError, match="cannot be read"):
        tokenizer_sha(folder / "b.model")

"""Writes, maps, lists and identifies token shards in the challenge's format.

A shard is a header of 256 little-endian int32 (magic, version, number of tokens, then zeros) followed by that many
little-endian uint16 tokens. A data folder holds `fineweb_train_*.bin`, `fineweb_val_*.bin` and one SentencePiece
`.model`. Torch-free. All token values are checked in `pgray/data/contents.py`, since that takes a full read.
Source: the published shards and `train_gpt.py` of openai/parameter-golf.
"""

import hashlib
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from trainer.errors import DataError
from trainer.records.files import naming

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 256 * 4
TOKEN_BYTES = 2
SAMPLE_BYTES = 64 * 1024

Split = Literal["train", "val"]
Tokens: TypeAlias = npt.NDArray[np.uint16]

_GET_DATA = "build it with `pgray data build` or fetch shards with `pgray data fetch`"
_GET_AGAIN = "delete the file and build or fetch it again"


def write_shard(path: Path, tokens: npt.ArrayLike) -> None:
    """Write one shard, in place: use a temporary folder if it must appear whole.

    Raises:
        ValueError: `tokens` is not 1-D, not of integers, or not within 0..65535. Names shape or value.
    """
    array = np.asarray(tokens)
    if array.ndim != 1:
        raise ValueError(f"tokens must be 1-D, got shape {array.shape}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"tokens must be integers, got {array.dtype}")
    if array.size and not (int(array.min()) >= 0 and int(array.max()) <= 0xFFFF):
        raise ValueError(f"tokens must be within 0..65535, got {array.min()}..{array.max()}")
    header = np.zeros(256, dtype="<i4")
    header[:3] = MAGIC, VERSION, array.size
    with naming(path), path.open("wb") as file:
        file.write(header.tobytes())
        file.write(array.astype("<u2").tobytes())


def read_num_tokens(path: Path) -> int:
    """Return the token count of a shard's header, which is checked against the format and the file's size.

    Raises:
        DataError: missing, shorter than a header, wrong magic or version, no tokens, or a size that does not match
            the token count. Names the file and what was found.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(12)
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        raise DataError(path, "no such shard", _GET_DATA) from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from None
    if size_bytes < HEADER_BYTES:
        raise DataError(path, f"{size_bytes} bytes, shorter than the {HEADER_BYTES}-byte shard header", _GET_AGAIN)
    magic, version, num_tokens = (int(value) for value in np.frombuffer(raw, dtype="<i4"))
    if magic != MAGIC:
        raise DataError(path, f"magic is {magic}, not {MAGIC}: not a token shard", "give a folder of token shards")
    if version != VERSION:
        raise DataError(path, f"shard version is {version}, not {VERSION}", "write it again in version 1")
    if num_tokens < 1:
        raise DataError(path, f"header says {num_tokens} tokens", _GET_AGAIN)
    expected_bytes = HEADER_BYTES + num_tokens * TOKEN_BYTES
    if size_bytes != expected_bytes:
        what = "truncated" if size_bytes < expected_bytes else "too long"
        problem = f"{what}: header says {num_tokens} tokens = {expected_bytes} bytes, file has {size_bytes} bytes"
        raise DataError(path, problem, _GET_AGAIN)
    return num_tokens


def map_tokens(path: Path) -> "np.memmap[tuple[int, ...], np.dtype[np.uint16]]":
    """Memory-map a shard's tokens: (N,) uint16, read-only, unchecked. Raises DataError as `read_num_tokens`."""
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(read_num_tokens(path),))


def check_vocabulary(tokens: Tokens, vocab_size: int, shard: Path, first: int) -> None:
    """Raise DataError if a token is outside the vocabulary. `first`: position of `tokens[0]` in the shard."""
    if len(tokens) and int(tokens.max()) >= vocab_size:
        at = int(np.argmax(tokens >= vocab_size))
        position = first + at
        offset = HEADER_BYTES + position * TOKEN_BYTES
        problem = f"token {position} (byte offset {offset}) is {tokens[at]}, outside the vocabulary of {vocab_size}"
        raise DataError(shard, problem, "use the tokenizer and model.vocab_size these shards were written with")


def list_shards(folder: Path, split: Split) -> list[Path]:
    """Return the shards of a split in name order, the order of training. Raises DataError if there is none."""
    return _list_files(folder, f"fineweb_{split}_*.bin", _GET_DATA)


def _list_files(folder: Path, pattern: str, fix: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(folder, "no such data folder", _GET_DATA)
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError(folder, f"no {pattern} in this folder", fix)
    return found


def shard_sha(path: Path) -> str:
    """Return the sha256 of a shard's size and its first and last 64 KiB. Raises DataError as `read_num_tokens`."""
    read_num_tokens(path)
    size_bytes = path.stat().st_size
    digest = hashlib.sha256(f"{size_bytes}\n".encode())
    with path.open("rb") as file:
        digest.update(file.read(SAMPLE_BYTES))
        file.seek(max(0, size_bytes - SAMPLE_BYTES))
        digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def data_sha(folder: Path) -> str:
    """Return the identity of a data folder's tokens, 64 hex digits. Equal content in equal order has equal identity.

    Every shard contributes its split, its position and its `shard_sha`, a sample: to hash 100 shards of 200 MB takes
    minutes, and this runs before every job. A change in the middle that keeps size, head and tail goes unnoticed; shards
    are built and published whole, so another export of the data differs in these too. Raises DataError as `list_shards`.
    """
    digest = hashlib.sha256()
    splits: tuple[Split, Split] = ("train", "val")
    for split in splits:
        for position, shard in enumerate(list_shards(folder, split)):
            digest.update(f"{split} {position} {shard_sha(shard)}\n".encode())
    return digest.hexdigest()


def find_tokenizer(folder: Path, tokenizer: str = "") -> Path:
    """Return the path `tokenizer` or, if that is empty, the one `*.model` in a data folder.

    Raises:
        DataError: the path or the folder does not exist, or the folder holds no model or several.
    """
    if tokenizer:
        path = Path(tokenizer)
        if not path.is_file():
            raise DataError(path, "no such tokenizer", "set data.tokenizer to a SentencePiece .model")
        return path
    models = _list_files(folder, "*.model", "put the SentencePiece .model there or set data.tokenizer")
    if len(models) > 1:
        names = ", ".join(model.name for model in models)
        raise DataError(folder, f"several tokenizers ({names})", "set data.tokenizer to the one that made the shards")
    return models[0]


def tokenizer_sha(path: Path) -> str:
    """Return the sha256 of a tokenizer file, 64 hex digits. Raises DataError if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from None

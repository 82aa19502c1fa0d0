"""Check the tokens of a data folder: the vocabulary, repeated shards, and validation text inside training shards.

Reading everything takes about a second per 100 million tokens and core, so the answer is remembered in the user's cache. Its
key contains names, sizes, times and hashes of the shards: a changed shard is read again. Until a large folder has been read
once, only samples of its shards are looked at.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from pgray.data.overlap import NGRAM_TOKENS, Copied, ValidationIndex
from trainer.data.shards import HEADER_BYTES, TOKEN_BYTES, Split, Tokens, read_num_tokens, shard_sha
from trainer.errors import DataError
from trainer.records.files import read_model, user_cache, write_json
from trainer.records.fingerprint import digest
from trainer.records.text import count_of

Shards = Sequence[tuple[Split, Path]]
"""The readable shards of a folder with their splits, each split in name order."""

MAX_SHARE_OF_SHARD = 0.001  # of the validation tokens, in one training shard: above it the data is refused
MAX_SHARE_OF_FOLDER = 0.05  # in all training shards together: crawls repeat each other, which no single shard shows
SMALL_TOKENS = 20_000_000  # such a folder is always read whole: it takes a fraction of a second
_CHECK_VERSION = 1  # raise it when a check changes: remembered answers are then out of date
_CHUNK_TOKENS = 4_000_000
_SAMPLES, _SAMPLE_TOKENS = 4, 1 << 16  # of each training shard
_MAX_THREADS = 8


class Problem(BaseModel):
    """The parts of a DataError."""

    path: str
    problem: str
    fix: str

    @property
    def error(self) -> DataError:
        return DataError(self.path, self.problem, self.fix)


class Findings(BaseModel):
    """What the tokens of a folder show. `is_full`: every token was read."""

    is_full: bool
    problems: list[Problem] = []
    warnings: list[str] = []


def check_contents(
    folder: Path, shards: Shards, limit: int | None, reads_all: bool, say: Callable[[str], None] = lambda _: None
) -> Findings:
    """Read the tokens of a folder, or samples of them; a remembered answer of a large folder saves both.

    Args:
        limit: size of the vocabulary; None if it is unknown.
        reads_all: read every token; False reads only samples of a large folder.
        say: told before a large folder is read.
    """
    num_tokens = sum(read_num_tokens(path) for _, path in shards)
    if num_tokens <= SMALL_TOKENS:
        return _find(folder, shards, limit, is_full=True)
    file = user_cache() / "data" / f"{_key(folder, shards, limit)}.json"
    if remembered := read_model(Findings, file):
        return remembered
    if not reads_all:
        return _find(folder, shards, limit, is_full=False)
    say(f"checking {num_tokens:,} tokens of {folder} once, about 100 million per second and core")
    findings = _find(folder, shards, limit, is_full=True)
    with suppress(OSError):  # without a writable cache folder the next check only takes longer
        write_json(file, findings.model_dump(mode="json"))
    return findings


def _find(folder: Path, shards: Shards, limit: int | None, is_full: bool) -> Findings:
    val = [_read(path, 0, read_num_tokens(path)) for split, path in shards if split == "val"]
    index = ValidationIndex(np.concatenate(val) if val else np.empty(0, np.uint16))

    def scan(shard: tuple[Split, Path]) -> _Scan:
        return _scan(*shard, index, is_full)

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:  # NumPy frees the interpreter
        scans = dict(zip(shards, pool.map(scan, shards), strict=True))
    errors = list(_repeat_problems(shards))
    is_val_in_train = any("validation text" in error.problem for error in errors)
    if limit is not None:
        errors += [_token_problem(path, limit) for (_, path), found in scans.items() if found.largest >= limit]
    warnings: list[str] = []
    if not is_val_in_train:
        hits = {path: found.hits for (split, path), found in scans.items() if split == "train"}
        copies, warnings = _copies(folder, index, hits)
        errors += copies
    problems = [Problem(path=str(error.path), problem=error.problem, fix=error.fix) for error in errors]
    return Findings(is_full=is_full, problems=problems, warnings=warnings)


def _key(folder: Path, shards: Shards, limit: int | None) -> str:
    """Identify the tokens of a folder. The change time betrays a shard that was edited and given its old times again."""
    facts = []
    for split, path in shards:
        status = path.stat()
        facts.append([split, path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, shard_sha(path)])
    return digest([_CHECK_VERSION, str(folder.absolute()), limit, facts], 24)


def _repeat_problems(shards: Shards) -> Iterator[DataError]:
    """Find shards that occur twice. A validation shard among the training shards invalidates every score."""
    seen: dict[str, Path] = {}
    for split, shard in shards:
        first = seen.setdefault(shard_sha(shard), shard)
        if first != shard:
            why = "training would see the validation text" if split == "val" else "it would be trained on twice"
            yield DataError(shard, f"holds the same tokens as {first.name}: {why}", "delete one and get the right one")


@dataclass(frozen=True)
class _Scan:
    """What reading a shard found. `hits`: which validation fingerprints a training shard contains."""

    largest: int
    hits: npt.NDArray[np.bool_]


def _scan(split: Split, path: Path, index: ValidationIndex, is_full: bool) -> _Scan:
    """Read a shard, or samples at equal distances. Pieces overlap, so that no fingerprint is cut."""
    num_tokens = read_num_tokens(path)
    if is_full or num_tokens <= _SAMPLES * _SAMPLE_TOKENS:
        count, starts = _CHUNK_TOKENS + NGRAM_TOKENS - 1, list(range(0, num_tokens, _CHUNK_TOKENS))
    else:
        count, starts = _SAMPLE_TOKENS, np.linspace(0, num_tokens - _SAMPLE_TOKENS, _SAMPLES).astype(int).tolist()
    largest, hits = 0, index.hits(np.empty(0, np.uint16))
    for start in starts:
        tokens = _read(path, start, count)
        largest = max(largest, int(tokens.max()))
        if split == "train":
            hits |= index.hits(tokens)
    return _Scan(largest, hits)


def _read(path: Path, start: int, count: int) -> Tokens:
    """Return up to `count` tokens of a shard. Reading is several times faster than a memory map of a cold file."""
    return np.fromfile(path, dtype="<u2", count=count, offset=HEADER_BYTES + TOKEN_BYTES * start)


def _token_problem(shard: Path, limit: int) -> DataError:
    """Describe a shard with tokens outside the vocabulary: position and value of the first, and their number."""
    tokens = _read(shard, 0, read_num_tokens(shard))
    bad = np.flatnonzero(tokens >= limit)
    first = int(bad[0])
    offset = HEADER_BYTES + first * TOKEN_BYTES
    problem = f"token {first} (byte offset {offset}) is {tokens[first]}, outside the vocabulary of {limit}"
    fix = "use the tokenizer and model.vocab_size these shards were written with"
    return DataError(shard, f"{problem}; {len(bad)} such tokens", fix)


def _copies(
    folder: Path, index: ValidationIndex, hits: Mapping[Path, npt.NDArray[np.bool_]]
) -> tuple[list[DataError], list[str]]:
    """Find validation text in training shards. Returns what is refused, and what is only worth a warning."""
    errors = []
    for path, own in hits.items():
        copied = index.copied(own)
        if copied and copied.num_tokens > MAX_SHARE_OF_SHARD * index.num_tokens:
            fix = "remove that text from training, or get shards whose splits are apart"
            errors.append(DataError(path, f"contains {_text(copied, index)}", fix))
    total = index.copied(np.logical_or.reduce(list(hits.values()))) if hits else None
    if total is None or errors:
        return errors, []
    line = f"{count_of(len(hits), 'training shard')} together contain {_text(total, index)}"
    if total.num_tokens > MAX_SHARE_OF_FOLDER * index.num_tokens:
        return [DataError(folder, line, "get shards whose splits are apart")], []
    return [], [f"{folder}: {line}; below {MAX_SHARE_OF_FOLDER:.0%} this passes for natural repetition"]


def _text(copied: Copied, index: ValidationIndex) -> str:
    share = f"{copied.num_tokens / index.num_tokens:.2%} of it"
    return f"{copied.num_tokens:,} tokens of validation text ({share}, the first at validation token {copied.first:,})"

"""Check a data folder before it is used for training. Each problem names file, position, value and fix.

A tokenizer that counts bytes wrongly changes every bpb of a table but no loss. It must have a piece for a single space and byte
fallback, and no space inside a piece. Whether it wrote the shards is tested by decoding and encoding their text again: another
tokenizer of the same size gives other tokens. That is only a warning, because synthetic shards are not text.
Source: the mistakes listed in openai/parameter-golf issues 897 and 1719.
"""

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import sentencepiece

from trainer.data.bytes_per_token import SPACE, count_bytes, load_processor, token_bytes
from trainer.data.shards import (
    HEADER_BYTES,
    TOKEN_BYTES,
    Split,
    Tokens,
    data_sha,
    find_tokenizer,
    list_shards,
    map_tokens,
    read_num_tokens,
    shard_sha,
    tokenizer_sha,
)
from trainer.errors import DataError

_CHUNK_TOKENS = 4_000_000
_SAMPLE_TOKENS = 1024
_MIN_AGREEMENT = 0.98  # measured on 90 samples: the right tokenizer at least 0.998, another of its size at most 0.96


@dataclass(frozen=True)
class DataReport:
    """The contents and problems of a data folder. None = unknown, or not read by `preflight`."""

    folder: Path
    tokenizer: Path | None
    tokenizer_sha: str | None
    data_sha: str | None
    vocab_size: int | None
    train_shards: int
    val_shards: int
    train_tokens: int
    val_tokens: int
    is_full: bool  # every token was read
    scored_tokens: int | None = None  # validation targets in whole sequences; the first token is never a target
    scored_bytes: int | None = None  # their bytes of text: the denominator of bpb
    problems: tuple[str, ...] = ()  # each names the file, the finding and the fix
    warnings: tuple[str, ...] = ()  # probably a mistake

    @property
    def is_ok(self) -> bool:
        return not self.problems


def preflight(
    folder: Path, tokenizer: str = "", vocab_size: int | None = None, seq_len: int | None = None
) -> DataReport:
    """Check everything that needs no reading of whole shards, and hash the data. Takes milliseconds; runs before every launch.

    Args:
        folder: a data folder.
        tokenizer: `data.tokenizer`; empty = the one `*.model` in the folder.
        vocab_size: `model.vocab_size` that the data must fit; None = any.
        seq_len: the longest sequence in tokens; None = any.
    Returns:
        DataReport without problems, and with `data_sha` and `tokenizer_sha`.
    Raises:
        DataError: the first problem found.
    """
    report, _, problems = _survey(folder, tokenizer, vocab_size, seq_len)
    if problems:
        raise problems[0]
    return replace(report, data_sha=data_sha(folder), warnings=tuple(_mismatches(report)))


def check_folder(
    folder: Path, tokenizer: str = "", vocab_size: int | None = None, seq_len: int | None = None
) -> DataReport:
    """Read every token and list every problem instead of raising it. Arguments as in `preflight`."""
    report, shards, problems = _survey(folder, tokenizer, vocab_size, seq_len)
    report = replace(report, is_full=True)
    problems += [*_token_problems(shards, report.vocab_size or vocab_size), *_repeat_problems(shards)]
    if problems:
        return replace(report, problems=tuple(dict.fromkeys(map(str, problems))))
    scored_tokens, scored_bytes = _scored(report, seq_len)
    report = replace(report, scored_tokens=scored_tokens, scored_bytes=scored_bytes)
    return replace(report, data_sha=data_sha(folder), warnings=tuple(_mismatches(report)))


def _survey(
    folder: Path, tokenizer: str, vocab_size: int | None, seq_len: int | None
) -> tuple[DataReport, list[tuple[Split, Path]], list[DataError]]:
    """Read the tokenizer and the shard headers. Return a report without hashes, the readable shards, and the problems."""
    problems: list[DataError] = []
    model: Path | None = None
    num_pieces: int | None = None
    try:
        found = find_tokenizer(folder, tokenizer)
        num_pieces = int(load_processor(found).vocab_size())
        model = found
        problems += _tokenizer_problems(model, vocab_size)
    except DataError as error:
        problems.append(error)
    num_tokens: dict[Split, dict[Path, int]] = {"train": {}, "val": {}}  # of each shard; 0 if it cannot be read
    for split, counts in num_tokens.items():
        try:
            counts.update(dict.fromkeys(list_shards(folder, split), 0))
        except DataError as error:
            problems.append(error)
        for shard in counts:
            try:
                counts[shard] = read_num_tokens(shard)
            except DataError as error:
                problems.append(error)
        total = sum(counts.values())
        if seq_len is not None and counts and all(counts.values()) and total < seq_len + 1:
            problem = f"{split} split has {total} tokens, fewer than seq_len + 1 = {seq_len + 1}"
            problems.append(DataError(folder, problem, "lower train.seq_len and eval.seq_len, or get more data"))
    report = DataReport(
        folder,
        model,
        tokenizer_sha=tokenizer_sha(model) if model else None,
        data_sha=None,
        vocab_size=num_pieces,
        train_shards=len(num_tokens["train"]),
        val_shards=len(num_tokens["val"]),
        train_tokens=sum(num_tokens["train"].values()),
        val_tokens=sum(num_tokens["val"].values()),
        is_full=False,
    )
    return (
        report,
        [(split, shard) for split, counts in num_tokens.items() for shard in counts if counts[shard]],
        problems,
    )


def _tokenizer_problems(model: Path, vocab_size: int | None) -> Iterator[DataError]:
    processor = load_processor(model)
    found = int(processor.vocab_size())
    if vocab_size is not None and vocab_size != found:
        problem = f"tokenizer has {found} pieces, model.vocab_size is {vocab_size}"
        fix = f"set model.vocab_size to {found}, or data.path and data.tokenizer to data that fit"
        yield DataError(model, problem, fix)
    if processor.piece_to_id(SPACE) == processor.unk_id():
        problem = "no piece for a space (U+2581) alone, so a lone space would cost three byte tokens"
        yield DataError(model, problem, "train the tokenizer with that piece in its vocabulary")
    if not any(processor.is_byte(token) for token in range(found)):
        problem = "no byte fallback, so text outside the vocabulary would become <unk> and its bytes would not count"
        yield DataError(model, problem, "train the tokenizer with byte_fallback=True")
    inner = [piece for piece in map(processor.id_to_piece, range(found)) if SPACE in piece[1:]]
    if inner:
        problem = f"{len(inner)} pieces with a space inside, first {inner[0]!r}; each would count 3 bytes for 1"
        yield DataError(model, problem, "train the tokenizer with split_by_whitespace=True")


def _token_problems(shards: Sequence[tuple[Split, Path]], limit: int | None) -> Iterator[DataError]:
    """Find tokens outside the vocabulary: position and value of the first, and their number, for each shard."""
    if limit is None:
        return
    for _, shard in shards:
        tokens = map_tokens(shard)
        chunks = (tokens[start : start + _CHUNK_TOKENS] for start in range(0, len(tokens), _CHUNK_TOKENS))
        if num_bad := sum(np.count_nonzero(chunk >= limit) for chunk in chunks):
            first = int(np.argmax(tokens >= limit))
            offset = HEADER_BYTES + first * TOKEN_BYTES
            problem = f"token {first} (byte offset {offset}) is {tokens[first]}, outside the vocabulary of {limit}"
            fix = "use the tokenizer and model.vocab_size these shards were written with"
            yield DataError(shard, f"{problem}; {num_bad} such tokens", fix)


def _repeat_problems(shards: Sequence[tuple[Split, Path]]) -> Iterator[DataError]:
    """Find shards that occur twice. A validation shard among the training shards invalidates every score."""
    seen: dict[str, Path] = {}
    for split, shard in shards:
        first = seen.setdefault(shard_sha(shard), shard)
        if first != shard:
            why = "training would see the validation text" if split == "val" else "it would be trained on twice"
            yield DataError(shard, f"holds the same tokens as {first.name}: {why}", "delete one and get the right one")


def _mismatches(report: DataReport) -> Iterator[str]:
    """Yield a line for each split whose first tokens this tokenizer probably did not write."""
    assert report.tokenizer is not None  # no problem was found
    processor = load_processor(report.tokenizer)
    for shard in (list_shards(report.folder, "train")[0], list_shards(report.folder, "val")[0]):
        tokens = map_tokens(shard)[:_SAMPLE_TOKENS]
        is_within = int(tokens.max()) < int(processor.vocab_size())
        agreement = _agreement(processor, tokens) if is_within else 0.0
        if agreement < _MIN_AGREEMENT:
            problem = f"of its first {len(tokens)} tokens {agreement:.0%} are the same when decoded and encoded again"
            fix = f"{report.tokenizer.name} probably did not write it; bytes may be counted wrongly"
            yield str(DataError(shard, problem, fix))


def _agreement(processor: sentencepiece.SentencePieceProcessor, tokens: Tokens) -> float:
    """Return the share of tokens (0 to 1) that are the same after each document is decoded and encoded again."""
    by_document = itertools.groupby(tokens.tolist(), processor.is_control)
    documents = [list(document) for is_control, document in by_document if not is_control]
    again = [processor.encode(processor.decode(document), out_type=int) for document in documents]
    before, after = list(itertools.chain.from_iterable(documents)), list(itertools.chain.from_iterable(again))
    return difflib.SequenceMatcher(None, before, after, autojunk=False).ratio()


def _scored(report: DataReport, seq_len: int | None) -> tuple[int, int]:
    """Return the number of validation targets, in whole sequences of `seq_len`, and their bytes of text."""
    assert report.tokenizer is not None  # no problem was found
    table = token_bytes(report.tokenizer)
    val = np.concatenate([map_tokens(shard) for shard in list_shards(report.folder, "val")])
    num_targets = (len(val) - 1) // (seq_len or 1) * (seq_len or 1)
    num_bytes = 0
    for start in range(0, num_targets, _CHUNK_TOKENS):
        end = min(start + _CHUNK_TOKENS, num_targets)
        num_bytes += count_bytes(table, val[start:end], val[start + 1 : end + 1])
    return num_targets, num_bytes

"""Check a data folder before it is used for training. Each problem names file, position, value and fix.

A tokenizer that counts bytes wrongly changes every bpb of a table but no loss. It must have a piece for a single space and byte
fallback, and no space inside a piece. Whether it wrote the shards is tested by decoding and encoding their text again: another
tokenizer of the same size gives other tokens. That is only a warning, because synthetic shards are not text.
Source: the mistakes listed in openai/parameter-golf issues 897 and 1719.
"""

import difflib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import sentencepiece

from pgray.data.contents import check_contents
from trainer.data.bytes_per_token import SPACE, count_bytes, load_processor, token_bytes
from trainer.data.shards import (
    Split,
    Tokens,
    data_sha,
    find_tokenizer,
    list_shards,
    map_tokens,
    read_num_tokens,
    tokenizer_sha,
)
from trainer.errors import DataError

_CHUNK_TOKENS = 4_000_000  # of validation
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
    is_full: bool  # every token was read, now or at an earlier check
    scored_tokens: int | None = None  # validation targets in whole sequences; the first token is never a target
    scored_bytes: int | None = None  # their bytes of text: the denominator of bpb
    problems: tuple[str, ...] = ()  # each names the file, the finding and the fix
    warnings: tuple[str, ...] = ()  # probably a mistake

    @property
    def is_ok(self) -> bool:
        return not self.problems


def preflight(
    folder: Path,
    tokenizer: str = "",
    vocab_size: int | None = None,
    seq_len: int | None = None,
    *,
    reads_all: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> DataReport:
    """Check a folder before a plan or a launch, and hash the data. Refuses what `check_folder` lists.

    What `pgray/data/contents.py` finds in the tokens is remembered: only the first call with `reads_all` takes long. Without
    it, only samples of a large folder are read until then, which a warning says.

    Args:
        folder: a data folder.
        tokenizer: `data.tokenizer`; empty = the one `*.model` in the folder.
        vocab_size: `model.vocab_size` that the data must fit; None = any.
        seq_len: the longest sequence in tokens; None = any.
        reads_all: read every token of a folder that was not read before.
        say: told when that takes longer than a second.
    Returns:
        DataReport without problems, and with `data_sha` and `tokenizer_sha`.
    Raises:
        DataError: the first problem found.
    """
    report, shards, problems = _survey(folder, tokenizer, vocab_size, seq_len)
    if problems:
        raise problems[0]
    assert report.vocab_size is not None  # no problem was found
    found = check_contents(folder, shards, report.vocab_size, reads_all, say)
    if found.problems:
        raise found.problems[0].error
    warnings = (*_mismatches(report), *found.warnings)
    if not found.is_full:
        warnings += (
            f"{folder}: only samples of the tokens were checked; pgray run and pgray data check read them all",
        )
    return replace(report, data_sha=data_sha(folder), is_full=found.is_full, warnings=warnings)


def check_folder(
    folder: Path, tokenizer: str = "", vocab_size: int | None = None, seq_len: int | None = None
) -> DataReport:
    """Read every token and list every problem instead of raising it. Arguments as in `preflight`."""
    report, shards, problems = _survey(folder, tokenizer, vocab_size, seq_len)
    found = check_contents(folder, shards, report.vocab_size or vocab_size, reads_all=True)
    report = replace(report, is_full=True)
    problems += [problem.error for problem in found.problems]
    if problems:
        return replace(report, problems=tuple(dict.fromkeys(map(str, problems))), warnings=tuple(found.warnings))
    scored_tokens, scored_bytes = _scored(report, seq_len)
    report = replace(report, scored_tokens=scored_tokens, scored_bytes=scored_bytes)
    return replace(report, data_sha=data_sha(folder), warnings=(*_mismatches(report), *found.warnings))


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

"""Choose the text of the embedded corpus: modules of installed packages, cut into documents, in two splits.

Modules are ordered by the hash of their name, so that the order does not depend on the file system. The first ones become
validation, the others training. A paragraph occurs only once in the corpus, and validation drops what training nearly contains.
"""

import hashlib
import importlib.util
import itertools
import multiprocessing
import os
import sysconfig
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import DataError

STDLIB = "python"

_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "_testing", "idlelib", "lib2to3", "turtledemo"}
    | {"site-packages", "dist-packages", "_bundled", "_vendor", "vendored_packages", "thirdparty_files", "externals"}
)
_DOCUMENT_CHARS = 4000  # approximate size of a document, like that of a web page
_VAL_MODULE_CHARS = 8000  # from one module, so that none fills the validation split
_CHARS_PER_TOKEN = 4  # more than the real ratio, since validation loses the text that training contains
_SHINGLE_WORDS = 8


@dataclass(frozen=True)
class CorpusSpec:
    """The sources and sizes of a corpus. The defaults define the embedded corpus; tests build smaller ones."""

    packages: tuple[str, ...] = (
        STDLIB,
        "numpy",
        "scipy",
        "pandas",
        "torch",
        "ray",
        "optuna",
        "huggingface_hub",
        "pydantic",
        "rich",
        "typer",
    )
    train_chars: int = 9_000_000
    val_tokens: int = 64 * 1024 + 1  # whole sequences of any power of two up to 64Ki, plus the last target
    vocab_size: int = 1024
    tokenizer_chars: int = 4_000_000
    shard_tokens: int = 1_000_000


def _sources(package: str) -> Iterator[tuple[str, Path]]:
    """Yield the name, equal on every machine, and the path of each source file of a package."""
    if package == STDLIB:
        root = Path(sysconfig.get_path("stdlib"))
    else:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise DataError(f"package {package}", "has no source folder", "install it from PyPI; run `make setup`")
        root = Path(next(iter(found.submodule_search_locations)))
    for folder, children, names in os.walk(root):
        children[:] = [child for child in children if child not in _SKIPPED_FOLDERS]
        for name in names:
            if name.endswith(".py"):
                path = Path(folder, name)
                yield f"{package}/{path.relative_to(root).as_posix()}", path


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def read_modules(spec: CorpusSpec, workers: int | None = None) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and prose paragraphs of each module that has any, ordered by the hash of the name. Reads lazily."""
    sources = sorted(itertools.chain.from_iterable(map(_sources, spec.packages)), key=lambda item: _hash(item[0]))
    texts = _read([path for _, path in sources], workers or min(8, os.cpu_count() or 1))
    return ((name, text) for (name, _), text in zip(sources, texts, strict=False) if text)


def _read(paths: list[Path], workers: int) -> Iterator[list[str]]:
    from pgray.data.prose import document

    num_done = 0
    if workers > 1:
        # spawn, since forking a process with threads (Ray, torch) is unsafe
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
        try:
            for text in pool.map(document, paths, chunksize=32):
                num_done += 1
                yield text
        except BrokenProcessPool:  # out of memory, or the main script cannot be imported: continue in this process
            pass
        finally:
            pool.shutdown(cancel_futures=True)
    yield from map(document, paths[num_done:])


def _unique(modules: Iterable[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Drop every paragraph that an earlier module contains."""
    from pgray.data.prose import paragraph_key

    seen: set[bytes] = set()
    for name, text in modules:
        keyed = {paragraph_key(paragraph): paragraph for paragraph in text}  # `document` leaves no two with one key
        fresh = [paragraph for key, paragraph in keyed.items() if key not in seen]
        seen |= keyed.keys()
        if fresh:
            yield name, fresh


def first_chars(text: list[str], limit_chars: int) -> list[str]:
    """Return the first paragraphs that fit into `limit_chars`, at least one."""
    ends = list(itertools.accumulate(len(paragraph) + 1 for paragraph in text))
    return text[: max(1, sum(end <= limit_chars for end in ends))]


def _shingles(paragraph: str) -> set[int]:
    words = paragraph.lower().split()  # hash() differs between processes, but these stay in this one
    return {hash(tuple(words[i : i + _SHINGLE_WORDS])) for i in range(max(1, len(words) - _SHINGLE_WORDS + 1))}


def _not_in_training(val: list[list[str]], train: list[list[str]]) -> list[list[str]]:
    """Drop validation paragraphs half or more of whose eight-word sequences occur in training."""
    wanted = set().union(*(_shingles(paragraph) for text in val for paragraph in text))
    known = {shingle for text in train for paragraph in text for shingle in _shingles(paragraph) & wanted}
    kept = [[p for p in text if 2 * len((s := _shingles(p)) & known) < len(s)] for text in val]
    return [text for text in kept if text]


def _documents(name: str, text: list[str]) -> Iterator[tuple[str, list[str]]]:
    document: list[str] = []
    size_chars = part = 0
    for paragraph in text:
        document.append(paragraph)
        size_chars += len(paragraph) + 1
        if size_chars >= _DOCUMENT_CHARS:
            yield f"{name}#{part}", document
            document, size_chars, part = [], 0, part + 1
    if document:
        yield f"{name}#{part}", document


def split(modules: Iterable[tuple[str, list[str]]], spec: CorpusSpec) -> tuple[list[str], list[str]]:
    """Choose the documents of both splits, reading only as many modules as needed.

    Args:
        modules: name and paragraphs of each; the first ones become validation.
        spec: the sizes of the splits.
    Returns:
        Training documents and validation documents, with one paragraph per line.
    Raises:
        DataError: no text is left for training.
    """
    rest = iter(_unique(modules))
    val: list[list[str]] = []
    val_chars = 0
    for _, text in rest:
        val.append(first_chars(text, _VAL_MODULE_CHARS))
        val_chars += sum(map(len, val[-1]))
        if val_chars >= _CHARS_PER_TOKEN * spec.val_tokens:
            break
    train: list[tuple[str, list[str]]] = []
    train_chars = 0
    for name, text in rest:
        train.append((name, text))
        train_chars += sum(map(len, text))
        if train_chars >= spec.train_chars:
            break
    if not train:
        problem = f"only {val_chars:,} characters of documentation, all of them needed for validation"
        raise DataError("embedded corpus", problem, "name more packages or ask for fewer validation tokens")
    val = _not_in_training(val, [text for _, text in train])
    # ordered by hash, which spreads the parts of a long module over the split
    parts = sorted((part for name, text in train for part in _documents(name, text)), key=lambda part: _hash(part[0]))
    return ["\n".join(text) for _, text in parts], ["\n".join(text) for text in val]

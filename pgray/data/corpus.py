"""Build the embedded corpus: real English text on every machine, without a download.

The text is the documentation in the installed, pinned packages and the standard library (`pgray/data/prose.py`). It is small
and of one kind: good for developing and comparing techniques on a laptop, NOT for claims about FineWeb (`pgray data fetch`).

The same packages give the same bytes. The result does not depend on the order of the file system, the clock, the number of
workers or the install paths, and the manifest records what it was made from.
"""

import hashlib
import importlib.metadata
import itertools
import platform
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from pgray.data.documents import STDLIB, CorpusSpec, first_chars, read_modules, split
from trainer.errors import DataError, InputError
from trainer.records.files import read_model, write_bytes, write_json
from trainer.records.record import Record

BUILDER_VERSION = 1  # increase it with every change that can change a byte of the corpus
TOKENIZER_NAME = "tokenizer.model"
MANIFEST_NAME = "manifest.json"


class CorpusManifest(Record):
    """The contents of a corpus folder: `manifest.json`."""

    recipe: dict[str, Any]  # everything the bytes depend on: builder version, spec, Python and package versions
    train_tokens: int
    val_tokens: int
    train_documents: int
    val_documents: int
    train_text_bytes: int
    bytes_per_token: float  # training text
    files: dict[str, dict[str, Any]]  # name -> bytes, sha256


def build_corpus(
    out: Path,
    *,
    force: bool = False,
    report: Callable[[str], None] = lambda _: None,
    spec: CorpusSpec = CorpusSpec(),
    workers: int | None = None,
) -> CorpusManifest:
    """Build the corpus in `out`, unless it is up to date.

    Args:
        out: a folder that does not exist, is empty, or holds a corpus. It is replaced as a whole or not at all.
        force: build even if it is up to date.
        report: called with one line per stage.
        spec: sources and sizes.
        workers: processes that read sources; None = up to 8, 1 = this process. The bytes do not depend on it.
    Raises:
        InputError: `out` holds something else.
        DataError: a package is not installed, or there is too little text.
    """
    recipe = _recipe(spec)
    manifest = read_manifest(out)
    if manifest and not force and _is_current(out, manifest, recipe):
        report(f"{out}: up to date ({manifest.train_tokens:,} train tokens, {manifest.val_tokens:,} validation tokens)")
        return manifest
    if out.exists() and not manifest and (not out.is_dir() or any(out.iterdir())):
        raise InputError(str(out), "out", "not a corpus folder", "it holds other files; give a new or an empty folder")

    with _lock(out):
        manifest = read_manifest(out)  # another process may have built it while this one waited
        if not (manifest and not force and _is_current(out, manifest, recipe)):
            manifest = _replace(out, lambda folder: _build(folder, spec, recipe, workers, report))
    report(f"{out}: {manifest.train_tokens:,} train tokens, {manifest.val_tokens:,} validation tokens")
    return manifest


def _lock(out: Path) -> AbstractContextManager[object]:
    """Take the lock that allows one builder per folder; leaving the `with` block releases it."""
    from filelock import FileLock

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(out.parent / f".{out.name}.lock").acquire()
    except OSError as error:
        raise InputError(str(out), "out", error.strerror, "choose a folder that you may write to") from None


def _replace(out: Path, build: Callable[[Path], CorpusManifest]) -> CorpusManifest:
    """Build in another folder and rename it: `out` is always the old corpus, absent, or the new one. Needs the lock."""
    building, old = out.parent / f".{out.name}.building", out.parent / f".{out.name}.old"
    for leftover in (building, old):  # of a killed builder
        shutil.rmtree(leftover, ignore_errors=True)
    building.mkdir()
    try:
        manifest = build(building)
        if out.exists():
            out.rename(old)
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return manifest


def read_manifest(folder: Path) -> CorpusManifest | None:
    """Return the manifest of a corpus folder, or None if there is no readable one."""
    return read_model(CorpusManifest, folder / MANIFEST_NAME)


def _is_current(folder: Path, manifest: CorpusManifest, recipe: dict[str, Any]) -> bool:
    """Check recipe and file sizes only, since this runs before every quickstart."""
    files = ((folder / name, entry["bytes"]) for name, entry in manifest.files.items())
    is_complete = all(path.is_file() and path.stat().st_size == size_bytes for path, size_bytes in files)
    return is_complete and manifest.recipe == recipe


def _recipe(spec: CorpusSpec) -> dict[str, Any]:
    versions = {}
    for name in sorted({*spec.packages, "sentencepiece"} - {STDLIB}):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            fix = "run `make setup`; the corpus is made from its documentation"
            raise DataError(f"package {name}", "not installed", fix) from None
    python = platform.python_version()
    # with the spec's tuples as lists, as in the file
    return {"builder": BUILDER_VERSION, "python": python, "packages": versions, "spec": to_jsonable_python(spec)}


def _build(
    folder: Path, spec: CorpusSpec, recipe: dict[str, Any], workers: int | None, report: Callable[[str], None]
) -> CorpusManifest:
    import numpy as np

    from pgray.data.tokenizer import encode_documents, train_tokenizer
    from trainer.data.shards import write_shard

    report(f"reading the documentation of {', '.join(spec.packages)}")
    train, val = split(read_modules(spec, workers), spec)
    train_text_bytes = sum(len(text.encode()) for text in train)
    report(f"training a {spec.vocab_size}-piece tokenizer on {train_text_bytes / 1e6:.1f} MB of training text")
    try:
        model = train_tokenizer(first_chars("\n".join(train).split("\n"), spec.tokenizer_chars), spec.vocab_size)
    except ValueError as error:
        raise DataError("embedded corpus", str(error), "name more packages or a smaller vocabulary") from None
    write_bytes(folder / TOKENIZER_NAME, model)

    report(f"encoding {len(train):,} documents")
    train_tokens = np.fromiter(itertools.chain.from_iterable(encode_documents(model, train)), dtype=np.uint16)
    val_tokens = np.fromiter(itertools.chain.from_iterable(encode_documents(model, val)), dtype=np.uint16)
    if len(val_tokens) < spec.val_tokens:
        problem = f"only {len(val_tokens):,} of {spec.val_tokens:,} validation tokens"
        raise DataError("embedded corpus", problem, "name more packages or ask for fewer validation tokens")
    val_tokens = val_tokens[: spec.val_tokens]
    for shard, start in enumerate(range(0, len(train_tokens), spec.shard_tokens)):
        write_shard(folder / f"fineweb_train_{shard:06d}.bin", train_tokens[start : start + spec.shard_tokens])
    write_shard(folder / "fineweb_val_000000.bin", val_tokens)

    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    manifest = CorpusManifest(
        recipe=recipe,
        train_tokens=len(train_tokens),
        val_tokens=len(val_tokens),
        train_documents=len(train),
        val_documents=int(np.count_nonzero(val_tokens == 1)),
        train_text_bytes=train_text_bytes,
        bytes_per_token=round(train_text_bytes / len(train_tokens), 4),
        files={name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in files.items()},
    )
    write_json(folder / MANIFEST_NAME, manifest.model_dump())
    return manifest

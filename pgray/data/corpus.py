"""The embedded corpus: real English, on every machine, without a download.

The text is the documentation inside the installed, pinned packages and the standard library (`prose.py`), so it costs
no network and no megabytes in the repository. It is small and of one kind: good for developing, testing and comparing
techniques on a laptop, NOT for claims about FineWeb (`pgray data fetch`).

The same packages give the same bytes: modules are taken in the order of a hash of their name, never of the file
system, and the manifest holds no time and no absolute path. The first modules are validation, the rest training; a
paragraph occurs once in the whole corpus, and validation drops paragraphs that training nearly contains.
"""

import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import multiprocessing
import os
import platform
import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.errors import DataError, InputError

BUILDER_VERSION = 1  # raise it with every change that can change a byte of the corpus
STDLIB = "python"
TOKENIZER_NAME = "tokenizer.model"
MANIFEST_NAME = "manifest.json"

_SKIPPED_FOLDERS = frozenset(
    "test tests testing _testing site-packages dist-packages idlelib lib2to3 turtledemo _bundled _vendor vendored_packages "
    "thirdparty_files _vendored externals".split()
)
_DOCUMENT_CHARS = 4000  # a module's paragraphs are cut into documents of about this size, as web pages are
_VAL_MODULE_CHARS = 8000  # no module may fill the validation split
_SHINGLE_WORDS = 8


@dataclass(frozen=True)
class CorpusSpec:
    """What goes into a corpus. The default is the embedded corpus; tests build smaller ones."""

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
    val_tokens: int = 64 * 1024 + 1  # whole sequences of any power of two up to 64Ki, and the last one's target
    vocab_size: int = 1024
    tokenizer_chars: int = 4_000_000
    shard_tokens: int = 1_000_000


@dataclass(frozen=True)
class CorpusManifest:
    """What a corpus folder holds: `manifest.json`."""

    recipe: dict[str, Any]  # all that decides the bytes: builder version, spec, Python and package versions
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
    """Build the corpus into `out`, or do nothing where it is already there.

    Args:
        out: a folder that does not exist, is empty, or holds a corpus. It appears whole or not at all.
        force: build even if the manifest says that nothing changed.
        report: called with one line per stage.
        spec: what goes in.
        workers: processes that read sources; None = up to 8, 1 = this process. Does not change a byte.
    Raises:
        InputError: `out` holds something else.
        DataError: a package is not installed, or there is too little text.
    """
    recipe = _recipe(spec)
    manifest = read_manifest(out)
    if manifest and manifest.recipe == recipe and not force and _is_whole(out, manifest):
        report(f"{out}: up to date ({manifest.train_tokens:,} train tokens, {manifest.val_tokens:,} validation tokens)")
        return manifest
    if out.exists() and not manifest and (not out.is_dir() or any(out.iterdir())):
        raise InputError(str(out), "out", "not a corpus folder", "it holds other files; give a new or an empty folder")

    from filelock import FileLock

    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.parent / f".{out.name}.lock"):
        manifest = read_manifest(out)  # another process may have built it while this one waited
        if manifest and manifest.recipe == recipe and not force and _is_whole(out, manifest):
            return manifest
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            manifest = _build(temporary, spec, recipe, workers, report)
            temporary.chmod(0o755)
            _replace(out, temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    report(f"{out}: {manifest.train_tokens:,} train tokens, {manifest.val_tokens:,} validation tokens")
    return manifest


def read_manifest(folder: Path) -> CorpusManifest | None:
    """The manifest of a corpus folder, or None where there is no readable one."""
    try:
        return CorpusManifest(**json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_whole(folder: Path, manifest: CorpusManifest) -> bool:
    """Sizes only: this runs before every quickstart. `pgray data check` reads the content."""
    files = ((folder / name, entry["bytes"]) for name, entry in manifest.files.items())
    return all(path.is_file() and path.stat().st_size == size_bytes for path, size_bytes in files)


def _replace(out: Path, built: Path) -> None:
    if out.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
        out.rename(old / "corpus")
        built.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    else:
        built.rename(out)


def _recipe(spec: CorpusSpec) -> dict[str, Any]:
    versions = {}
    for name in sorted({*spec.packages, "sentencepiece"} - {STDLIB}):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise DataError(
                f"package {name}", "not installed", "run `make setup`; the corpus is made of its docs"
            ) from None
    recipe = {
        "builder": BUILDER_VERSION,
        "python": platform.python_version(),
        "packages": versions,
        "spec": asdict(spec),
    }
    restored: dict[str, Any] = json.loads(json.dumps(recipe))  # tuples become lists, as in the file
    return restored


# --- sources -> documents


def _sources(package: str) -> Iterator[tuple[str, Path]]:
    """(name that is the same on every machine, file) of each source file of a package."""
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


def _modules(spec: CorpusSpec, workers: int | None) -> list[tuple[str, list[str]]]:
    """(name, prose paragraphs) of every module, in the order of the names' hashes."""
    from pgray.data.prose import document

    sources = sorted(itertools.chain.from_iterable(map(_sources, spec.packages)), key=lambda item: _hash(item[0]))
    paths = [path for _, path in sources]
    workers = min(8, os.cpu_count() or 1) if workers is None else workers
    if workers > 1:
        # spawn, not fork: the caller may hold threads (Ray, torch)
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            texts = list(pool.map(document, paths, chunksize=32))
    else:
        texts = list(map(document, paths))
    return [(name, text) for (name, _), text in zip(sources, texts, strict=True) if text]


def _unique(modules: Iterable[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Leave out every paragraph that an earlier module has."""
    from pgray.data.prose import paragraph_key

    seen: set[bytes] = set()
    for name, text in modules:
        fresh = []
        for paragraph in text:
            key = paragraph_key(paragraph)
            if key not in seen:
                seen.add(key)
                fresh.append(paragraph)
        if fresh:
            yield name, fresh


def _first_chars(text: list[str], limit_chars: int) -> list[str]:
    """The leading paragraphs that fit into `limit_chars`; at least one."""
    ends = list(itertools.accumulate(len(paragraph) + 1 for paragraph in text))
    return text[: max(1, sum(end <= limit_chars for end in ends))]


def _shingles(paragraph: str) -> set[int]:
    words = paragraph.lower().split()
    return {hash(tuple(words[i : i + _SHINGLE_WORDS])) for i in range(max(1, len(words) - _SHINGLE_WORDS + 1))}


def _not_in_training(val: list[list[str]], train: list[list[str]]) -> list[list[str]]:
    """Drop validation paragraphs of which training has half or more of the runs of eight words."""
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


def _split(modules: list[tuple[str, list[str]]], spec: CorpusSpec) -> tuple[list[str], list[str]]:
    """(training documents, validation documents), each a text of paragraphs, one a line."""
    rest = iter(_unique(modules))
    val: list[list[str]] = []
    val_chars = 0
    for _, text in rest:
        val.append(_first_chars(text, _VAL_MODULE_CHARS))
        val_chars += sum(map(len, val[-1]))
        if val_chars >= 4 * spec.val_tokens:  # a token is about 2.5 characters; overlap with training takes some away
            break
    train: list[tuple[str, list[str]]] = []
    train_chars = 0
    for name, text in rest:
        train.append((name, text))
        train_chars += sum(map(len, text))
        if train_chars >= spec.train_chars:
            break
    val = _not_in_training(val, [text for _, text in train])
    # by hash, so that the parts of a long module are spread over the split
    parts = sorted((part for name, text in train for part in _documents(name, text)), key=lambda part: _hash(part[0]))
    return ["\n".join(text) for _, text in parts], ["\n".join(text) for text in val]


# --- documents -> tokenizer and shards


def _build(
    folder: Path, spec: CorpusSpec, recipe: dict[str, Any], workers: int | None, report: Callable[[str], None]
) -> CorpusManifest:
    import numpy as np

    from pgray.data.tokenizer import encode_documents, train_tokenizer
    from trainer.shards import write_shard

    report(f"reading the documentation of {', '.join(spec.packages)}")
    train, val = _split(_modules(spec, workers), spec)
    train_text_bytes = sum(len(text.encode()) for text in train)
    report(f"training a {spec.vocab_size}-piece tokenizer on {train_text_bytes / 1e6:.1f} MB of training text")
    try:
        model = train_tokenizer(_first_chars("\n".join(train).split("\n"), spec.tokenizer_chars), spec.vocab_size)
    except ValueError as error:
        raise DataError(folder.name, str(error), "name more packages or a smaller vocabulary") from None
    (folder / TOKENIZER_NAME).write_bytes(model)

    report(f"encoding {len(train):,} documents")
    train_tokens = np.fromiter(itertools.chain.from_iterable(encode_documents(model, train)), dtype=np.uint16)
    val_tokens = np.fromiter(itertools.chain.from_iterable(encode_documents(model, val)), dtype=np.uint16)
    if len(val_tokens) < spec.val_tokens:
        problem = f"only {len(val_tokens):,} of {spec.val_tokens:,} validation tokens"
        raise DataError(folder.name, problem, "name more packages or ask for fewer validation tokens")
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
    (folder / MANIFEST_NAME).write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    return manifest

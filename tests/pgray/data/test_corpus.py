"""The embedded corpus: the same bytes every time, no validation text in training, and never a partial folder."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pgray.data import corpus, documents
from pgray.data.check import check_folder
from pgray.data.corpus import CorpusManifest, build_corpus, read_manifest
from pgray.data.documents import CorpusSpec
from pgray.data.prose import paragraph_key
from trainer.data.bytes_per_token import SPACE, load_processor
from trainer.data.shards import Split, list_shards, map_tokens
from trainer.errors import DataError, InputError

SPEC = CorpusSpec(
    packages=("optuna", "rich", "typer"),
    train_chars=150_000,
    val_tokens=4_097,
    vocab_size=500,
    tokenizer_chars=100_000,
    shard_tokens=20_000,
)
BOS = 1


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CorpusManifest]:
    folder = tmp_path_factory.mktemp("corpus") / "embedded"
    return folder, build_corpus(folder, spec=SPEC, workers=1)


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _documents(folder: Path, split: Split) -> list[str]:
    tokens = np.concatenate([map_tokens(shard) for shard in list_shards(folder, split)])
    processor = load_processor(folder / corpus.TOKENIZER_NAME)
    parts = np.split(tokens, np.flatnonzero(tokens == BOS))[1:]
    return [processor.decode(part.tolist()) for part in parts]


def test_the_bytes_do_not_depend_on_process_folder_file_order_or_hash_seed(
    built: tuple[Path, CorpusManifest], tmp_path: Path
) -> None:
    """Builds with two workers, another hash seed, another working folder and a reversed order of files."""
    script = f"""
import os, pathlib
from pgray.data import documents
from pgray.data.corpus import build_corpus
from pgray.data.documents import CorpusSpec
walk = os.walk
def backwards(root):
    for folder, children, names in walk(root):
        children.sort(reverse=True)
        names.sort(reverse=True)
        yield folder, children, names
if __name__ == "__main__":
    documents.os.walk = backwards
    build_corpus(pathlib.Path("elsewhere"), spec={SPEC!r}, workers=2)
"""
    (tmp_path / "build.py").write_text(script)
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(corpus.__file__).parents[2])}
    subprocess.run([sys.executable, "build.py"], cwd=tmp_path, env=environment, check=True)
    assert _content(tmp_path / "elsewhere") == _content(built[0])


def test_no_validation_paragraph_is_in_training(built: tuple[Path, CorpusManifest]) -> None:
    train = {paragraph_key(line) for text in _documents(built[0], "train") for line in text.split("\n")}
    val = [paragraph_key(line) for text in _documents(built[0], "val") for line in text.split("\n")]
    assert len(train) > 300
    assert len(val) > 50
    assert not train.intersection(val)


def test_validation_drops_what_training_nearly_contains() -> None:
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
    ]
    near = " ".join([*words, "fifteen"])
    far = " ".join(reversed(words))
    assert documents._not_in_training([[near, far], [near]], [[" ".join(words)]]) == [[far]]


def test_paragraphs_that_differ_in_case_and_numbers_occur_once() -> None:
    modules = [("a", ["Raise 1 error, at once.", "Other."]), ("b", ["raise 22 ERROR at once"]), ("c", ["New."])]
    assert list(documents._unique(modules)) == [("a", ["Raise 1 error, at once.", "Other."]), ("c", ["New."])]


def test_the_manifest_describes_the_folder_without_paths_of_this_machine(built: tuple[Path, CorpusManifest]) -> None:
    folder, manifest = built
    text = (folder / corpus.MANIFEST_NAME).read_text()
    assert manifest == read_manifest(folder)
    assert str(folder.parent) not in text
    assert sys.prefix not in text
    assert manifest.val_tokens == SPEC.val_tokens
    assert manifest.train_tokens == sum(len(map_tokens(shard)) for shard in list_shards(folder, "train"))
    assert len(list_shards(folder, "train")) == -(-manifest.train_tokens // SPEC.shard_tokens)
    assert manifest.train_documents == len(_documents(folder, "train"))
    assert manifest.val_documents == len(_documents(folder, "val"))
    assert {*manifest.files, corpus.MANIFEST_NAME} == {path.name for path in folder.iterdir()}
    assert set(manifest.recipe["packages"]) == {"optuna", "rich", "typer", "sentencepiece"}


def test_decoded_documents_are_english_text(built: tuple[Path, CorpusManifest]) -> None:
    folder, manifest = built
    text = "\n".join(_documents(folder, "train"))
    assert len(text.encode()) == pytest.approx(manifest.train_text_bytes, rel=1e-3)
    assert ">>>" not in text
    assert sum(character.isalpha() or character.isspace() for character in text) > 0.9 * len(text)
    assert text.count(" the ") > 500
    assert any(ord(character) > 127 for character in text)
    processor = load_processor(folder / corpus.TOKENIZER_NAME)
    assert processor.vocab_size() == SPEC.vocab_size
    assert processor.piece_to_id(SPACE) != processor.unk_id()
    assert (processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id()) == (0, 1, 2, 3)


def test_the_corpus_passes_the_full_check(built: tuple[Path, CorpusManifest]) -> None:
    folder, manifest = built
    report = check_folder(folder, vocab_size=SPEC.vocab_size, seq_len=1024)
    assert (report.problems, report.warnings) == ((), ())
    assert (report.train_tokens, report.val_tokens) == (manifest.train_tokens, manifest.val_tokens)
    assert report.scored_tokens == 4096


def test_a_second_build_does_nothing_unless_forced(
    built: tuple[Path, CorpusManifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest = built
    lines: list[str] = []
    monkeypatch.setattr(corpus, "_build", lambda *_: pytest.fail("built again"))
    assert build_corpus(folder, spec=SPEC, report=lines.append) == manifest
    assert len(lines) == 1
    assert "up to date" in lines[0]
    with pytest.raises(pytest.fail.Exception, match="built again"):
        build_corpus(folder, spec=SPEC, force=True)
    assert read_manifest(folder) == manifest  # a failed build keeps the old corpus


@pytest.mark.parametrize("change", ["version", "truncated", "missing", "spec"])
def test_an_outdated_or_damaged_corpus_is_rebuilt(
    built: tuple[Path, CorpusManifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    folder = tmp_path / "embedded"
    folder.mkdir()
    for name, raw in _content(built[0]).items():
        (folder / name).write_bytes(raw)
    rebuilt: list[Path] = []

    def build(where: Path, *_: object) -> CorpusManifest:
        rebuilt.append(where)
        (where / "new").touch()
        return built[1]

    monkeypatch.setattr(corpus, "_build", build)
    spec = SPEC
    if change == "version":
        monkeypatch.setattr(corpus, "BUILDER_VERSION", corpus.BUILDER_VERSION + 1)
    elif change == "truncated":
        os.truncate(folder / "fineweb_val_000000.bin", 100)
    elif change == "missing":
        (folder / corpus.TOKENIZER_NAME).unlink()
    else:
        spec = CorpusSpec(packages=("optuna", "rich"))
    build_corpus(folder, spec=spec)
    assert rebuilt
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert {path.name for path in tmp_path.iterdir()} <= {"embedded", ".embedded.lock"}


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    for changes, found in (
        ({"val_tokens": 9_000_000}, "only .* characters of documentation, all of them needed for validation"),
        ({"val_tokens": 4_097, "vocab_size": 60_000}, "cannot train 60000 pieces on this text"),
    ):
        with pytest.raises(DataError, match=f"embedded corpus: {found}"):
            build_corpus(tmp_path / "embedded", spec=replace(SPEC, **changes), workers=1)
        assert {path.name for path in tmp_path.iterdir()} <= {".embedded.lock"}


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a corpus folder: it holds other files"):
        build_corpus(tmp_path, spec=SPEC, force=True)
    (tmp_path / "manifest.json").write_text(json.dumps({"datasets": []}))
    with pytest.raises(InputError, match="not a corpus folder"):
        build_corpus(tmp_path, spec=SPEC, force=True)
    assert (tmp_path / "thesis.txt").is_file()
    with pytest.raises(InputError, match="choose a folder that you may write to"):
        build_corpus(tmp_path / "thesis.txt" / "x", spec=SPEC)


def test_a_missing_package_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="package no_such_package: not installed: run `make setup`"):
        build_corpus(tmp_path / "x", spec=CorpusSpec(packages=("no_such_package",)))

"""Validation text inside training shards, wherever it lies, and what is remembered of a check."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pgray.data import contents
from pgray.data.contents import Findings, Shards, check_contents
from trainer.data.shards import write_shard

VOCAB, BOS = 1024, 1
Tokens = npt.NDArray[np.uint16]
NOTICE = np.random.default_rng(7).integers(4, VOCAB, 300).astype(np.uint16)  # a licence that many documents end with


def _documents(rng: np.random.Generator, count: int, mean_tokens: int = 500) -> list[Tokens]:
    """Return documents of random lengths, every third with the notice."""
    lengths = rng.integers(150, 2 * mean_tokens, count)
    found = [np.concatenate(([BOS], rng.integers(4, VOCAB, n))).astype(np.uint16) for n in lengths]
    return [np.concatenate((d, NOTICE)) if i % 3 == 0 else d for i, d in enumerate(found)]


@pytest.fixture
def splits() -> dict[str, Tokens]:
    rng = np.random.default_rng(8)
    sizes = {"train_000000": 400, "train_000001": 400, "val_000000": 200}
    return {name: np.concatenate(_documents(rng, count)) for name, count in sizes.items()}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own. These folders are not small, and samples of a shard are a tenth of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "SMALL_TOKENS", 1000)
    monkeypatch.setattr(contents, "_SAMPLE_TOKENS", 5000)
    return tmp_path / "cache/pgray/data"


def _write(folder: Path, splits: dict[str, Tokens]) -> Shards:
    folder.mkdir(exist_ok=True)
    for name, tokens in splits.items():
        write_shard(folder / f"fineweb_{name}.bin", tokens)
    return [("val" if "val" in name else "train", folder / f"fineweb_{name}.bin") for name in sorted(splits)]


def _check(tmp_path: Path, splits: dict[str, Tokens], reads_all: bool = True) -> Findings:
    return check_contents(tmp_path / "data", _write(tmp_path / "data", splits), VOCAB, reads_all)


def _hide(splits: dict[str, Tokens], text: Tokens, at: int, shard: str = "train_000001") -> None:
    """Replace training tokens by a text."""
    splits[shard][at : at + len(text)] = text


def test_natural_repeats_are_no_problem(tmp_path: Path, splits: dict[str, Tokens]) -> None:
    """A third of all documents of both splits end with the same 300 tokens."""
    assert _check(tmp_path, splits) == Findings(is_full=True)


@pytest.mark.parametrize(
    "attack", ["one document", "middle of a document", "1 % of the documents", "everything", "joined"]
)
def test_validation_text_in_a_training_shard_is_refused(tmp_path: Path, splits: dict[str, Tokens], attack: str) -> None:
    val = splits["val_000000"]
    starts = np.flatnonzero(val == BOS)
    if attack == "one document":
        _hide(splits, val[starts[10] : starts[11]], 12_345)
    elif attack == "middle of a document":
        longest = int(np.argmax(np.diff(starts)))
        _hide(splits, val[starts[longest] + 101 : starts[longest] + 401], 54_321)
    elif attack == "1 % of the documents":
        for k, document in enumerate((31, 142)):
            _hide(splits, val[starts[document] : starts[document + 1]], 10_001 + 20_003 * k)
    elif attack == "everything":
        splits["train_000001"] = np.concatenate((splits["train_000001"][:777], val, splits["train_000001"]))
    else:  # the middle of the split: its ends, which a sampled hash reads, are others
        splits["train_000001"] = val[10:-10].copy()
    (problem,) = _check(tmp_path, splits).problems
    assert problem.path.endswith("fineweb_train_000001.bin")
    assert "tokens of validation text (" in problem.problem
    assert "remove that text from training" in problem.fix


def test_it_says_how_much_and_where(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    splits = {name: rng.integers(4, VOCAB, 100_000).astype(np.uint16) for name in ("train_000001", "val_000000")}
    _hide(splits, splits["val_000000"][20_000:21_000], 33_333)
    (problem,) = _check(tmp_path, splits).problems
    assert problem.problem == (
        "contains 1,000 tokens of validation text (1.00% of it, the first at validation token 20,000)"
    )


def test_a_little_repetition_is_a_warning(
    tmp_path: Path, splits: dict[str, Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "MAX_SHARE_OF_SHARD", 0.005)
    first = int(np.flatnonzero(splits["val_000000"] == BOS)[10])  # the eleventh document has no notice
    _hide(splits, splits["val_000000"][first : first + 150], 33_333)
    findings = _check(tmp_path, splits)
    assert findings.problems == []
    assert "2 training shards together contain " in findings.warnings[0]


def test_a_large_validation_split_is_sampled_independent_of_the_offset(
    tmp_path: Path, splits: dict[str, Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgray.data.overlap._NUM_KEPT", len(splits["val_000000"]) // 64)
    for offset in (10_000, 10_001, 10_037):
        attacked = {name: tokens.copy() for name, tokens in splits.items()}
        _hide(attacked, splits["val_000000"][20_000:22_000], offset)
        (problem,) = _check(tmp_path, attacked).problems
        assert 1400 < int(problem.problem.split()[1].replace(",", "")) < 2100
    assert _check(tmp_path, splits).problems == []


def test_a_full_check_is_made_once(tmp_path: Path, splits: dict[str, Tokens], cache: Path) -> None:
    """The hidden text lies between the samples: a plan does not see it, but remembers the check that did."""
    _hide(splits, splits["val_000000"][1000:3000], 30_000)
    sampled = _check(tmp_path, splits, reads_all=False)
    assert (sampled.is_full, sampled.problems) == (False, [])
    assert not cache.exists()
    shards, said = _write(tmp_path / "data", splits), list[str]()
    found = check_contents(tmp_path / "data", shards, VOCAB, True, said.append)
    assert len(found.problems) == 1
    assert "checking " in said[0]
    assert check_contents(tmp_path / "data", shards, VOCAB, False) == found
    assert check_contents(tmp_path / "data", shards, VOCAB, True, said.append) == found
    assert len(said) == 1
    assert check_contents(tmp_path / "data", shards, 500, False) != found  # another tokenizer


@pytest.mark.usefixtures("cache")
def test_a_changed_shard_is_read_again(tmp_path: Path, splits: dict[str, Tokens]) -> None:
    """Also if size, head, tail and times are those of before."""
    shards = _write(tmp_path / "data", splits)
    assert check_contents(tmp_path / "data", shards, VOCAB, True).is_full
    assert check_contents(tmp_path / "data", shards, VOCAB, False).is_full
    path = tmp_path / "data/fineweb_train_000000.bin"
    before = path.stat()
    tokens = splits["train_000000"]
    tokens[100_000] = 2000
    write_shard(path, tokens)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not check_contents(tmp_path / "data", shards, VOCAB, False).is_full
    (problem,) = check_contents(tmp_path / "data", shards, VOCAB, True).problems
    assert "token 100000 (byte offset 201024) is 2000, outside the vocabulary of 1024" in problem.problem


@pytest.mark.usefixtures("cache")
def test_without_a_writable_cache_only_the_memory_is_missing(
    tmp_path: Path, splits: dict[str, Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert _check(tmp_path, splits).is_full
    assert not _check(tmp_path, splits, reads_all=False).is_full

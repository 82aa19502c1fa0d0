"""Every defect of a data folder is reported in one line with the file, the finding and the fix."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import sentencepiece

from pgray.data.check import DataReport, check_folder, preflight
from pgray.data.tokenizer import encode_documents, train_tokenizer
from trainer.data.bytes_per_token import count_bytes, token_bytes
from trainer.data.shards import HEADER_BYTES, data_sha, map_tokens, tokenizer_sha, write_shard
from trainer.errors import DataError

VOCAB = 512
TEXTS = [topics[key] for key in sorted(topics)]
LINES = [line for text in TEXTS for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    model = train_tokenizer(LINES[:3000], VOCAB)
    (folder / "tokenizer.model").write_bytes(model)
    tokens = [token for document in encode_documents(model, TEXTS[:40]) for token in document]
    for name, part in (
        ("train_000000", tokens[:6000]),
        ("train_000001", tokens[6000:9000]),
        ("val_000000", tokens[9000:12_001]),
    ):
        write_shard(folder / f"fineweb_{name}.bin", part)
    return folder


@pytest.fixture
def data(source: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def _problems(data: Path, vocab_size: int | None = VOCAB, seq_len: int | None = 1024) -> tuple[str, ...]:
    """Return the problems of the full check. If preflight raises one, it must be the first of them."""
    report = check_folder(data, vocab_size=vocab_size, seq_len=seq_len)
    assert report.is_ok == (not report.problems)
    for problem in report.problems:
        assert "\n" not in problem
    raised = _preflight_error(data, vocab_size, seq_len)
    assert raised in (None, *report.problems[:1])
    return report.problems


def _preflight_error(data: Path, vocab_size: int | None, seq_len: int | None) -> str | None:
    try:
        preflight(data, vocab_size=vocab_size, seq_len=seq_len)
    except DataError as error:
        return str(error)
    return None


def _other_model(vocab_size: int = VOCAB, **settings: object) -> bytes:
    raw = io.BytesIO()
    defaults = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "minloglevel": 2}
    options = {**defaults, "hard_vocab_limit": False, **settings}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES[3000:5000]), model_writer=raw, vocab_size=vocab_size, **options
    )
    return raw.getvalue()


def test_good_data_has_no_problems(data: Path) -> None:
    model = data / "tokenizer.model"
    fast, full = preflight(data, vocab_size=VOCAB, seq_len=1024), check_folder(data, vocab_size=VOCAB, seq_len=1024)
    val = map_tokens(data / "fineweb_val_000000.bin")
    scored_bytes = count_bytes(token_bytes(model), val[:2048], val[1:2049])
    expected = DataReport(
        folder=data,
        tokenizer=model,
        tokenizer_sha=tokenizer_sha(model),
        data_sha=data_sha(data),
        vocab_size=VOCAB,
        train_shards=2,
        val_shards=1,
        train_tokens=9000,
        val_tokens=3001,
        is_full=True,
        scored_tokens=2048,
        scored_bytes=scored_bytes,
    )
    assert full == expected
    assert full.is_ok
    assert (fast.data_sha, fast.tokenizer_sha) == (full.data_sha, full.tokenizer_sha)
    assert (fast.is_full, fast.scored_tokens, fast.scored_bytes) == (True, None, None)


def test_the_tokenizer_may_be_outside_the_folder(data: Path) -> None:
    model = data.parent / f"{data.name}.model"
    (data / "tokenizer.model").rename(model)
    assert preflight(data, str(model)).tokenizer == model
    assert check_folder(data, str(model)).is_ok
    assert "no *.model in this folder" in _problems(data)[0]


def test_two_validation_shards_score_like_one(data: Path) -> None:
    whole = check_folder(data, seq_len=1024)
    val = np.array(map_tokens(data / "fineweb_val_000000.bin"))
    write_shard(data / "fineweb_val_000000.bin", val[:1234])
    write_shard(data / "fineweb_val_000001.bin", val[1234:])
    parts = check_folder(data, seq_len=1024)
    assert (parts.scored_tokens, parts.scored_bytes) == (whole.scored_tokens, whole.scored_bytes)


def test_a_token_outside_the_vocabulary_is_located(data: Path) -> None:
    path = data / "fineweb_train_000001.bin"
    tokens = np.array(map_tokens(path))
    tokens[[2500, 2700]] = 600, 65535
    write_shard(path, tokens)
    (problem,) = _problems(data)
    assert _preflight_error(data, VOCAB, None) == problem
    offset = HEADER_BYTES + 2 * 2500
    assert problem.startswith(
        f"{path}: token 2500 (byte offset {offset}) is 600, outside the vocabulary of {VOCAB}; 2 such tokens: use the"
    )


def _truncate(data: Path) -> None:
    path = data / "fineweb_val_000000.bin"
    path.write_bytes(path.read_bytes()[:-7])


def _foreign(data: Path) -> None:
    (data / "fineweb_train_000000.bin").write_bytes(b"PK" * 2000)


def _no_val(data: Path) -> None:
    (data / "fineweb_val_000000.bin").unlink()


def _no_train(data: Path) -> None:
    for path in data.glob("*train*"):
        path.unlink()


def _short_val(data: Path) -> None:
    write_shard(data / "fineweb_val_000000.bin", [5] * 1024)


def _broken_model(data: Path) -> None:
    (data / "tokenizer.model").write_bytes(b"\x00\x01")


def _two_models(data: Path) -> None:
    (data / "b.model").write_bytes(b"x")


def _no_fallback(data: Path) -> None:
    (data / "tokenizer.model").write_bytes(_other_model(byte_fallback=False, pad_id=3))


def _inner_space(data: Path) -> None:
    (data / "tokenizer.model").write_bytes(_other_model(split_by_whitespace=False))


def _val_in_training(data: Path) -> None:
    (data / "fineweb_val_000000.bin").write_bytes((data / "fineweb_train_000001.bin").read_bytes())


def _twice(data: Path) -> None:
    (data / "fineweb_train_000002.bin").write_bytes((data / "fineweb_train_000000.bin").read_bytes())


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (
            _truncate,
            "fineweb_val_000000.bin: truncated: header says 3001 tokens = 7026 bytes, file has 7019 bytes: delete",
        ),
        (_foreign, "fineweb_train_000000.bin: magic is 1263553360, not 20240520: not a token shard: give a folder"),
        (_no_val, ": no fineweb_val_*.bin in this folder: build it with `pgray data build` or fetch"),
        (_no_train, ": no fineweb_train_*.bin in this folder: build it with `pgray data build` or fetch"),
        (
            _short_val,
            ": val split has 1024 tokens, fewer than seq_len + 1 = 1025: lower train.seq_len and eval.seq_len",
        ),
        (_broken_model, "tokenizer.model: not a SentencePiece model: set data.tokenizer"),
        (_two_models, ": several tokenizers (b.model, tokenizer.model): set data.tokenizer"),
        (_no_fallback, "tokenizer.model: no byte fallback, so text outside the vocabulary would become <unk>"),
        (_inner_space, "pieces with a space inside, first '"),
        (
            _val_in_training,
            "fineweb_val_000000.bin: holds the same tokens as fineweb_train_000001.bin: training would see",
        ),
        (_twice, "fineweb_train_000002.bin: holds the same tokens as fineweb_train_000000.bin: it would be trained on"),
    ],
)
def test_every_defect_is_reported(data: Path, damage: Callable[[Path], None], found: str) -> None:
    damage(data)
    problems = _problems(data)
    assert len(problems) == 1, problems
    assert found in problems[0]
    assert str(data) in problems[0]


def test_a_vocabulary_of_another_size_is_a_problem(data: Path) -> None:
    (problem,) = _problems(data, vocab_size=1024)
    assert (
        f"tokenizer.model: tokenizer has {VOCAB} pieces, model.vocab_size is 1024: set model.vocab_size to {VOCAB}"
        in problem
    )


def test_a_missing_piece_for_a_single_space_is_a_problem(data: Path) -> None:
    """Such models exist (challenge issue 897). SentencePiece does not train one, so the test renames the piece."""
    from sentencepiece import sentencepiece_model_pb2 as model_proto

    proto = model_proto.ModelProto()
    proto.ParseFromString((data / "tokenizer.model").read_bytes())
    for piece in proto.pieces:
        if piece.piece == "\u2581":
            piece.piece = "\u4e00"
    (data / "tokenizer.model").write_bytes(proto.SerializeToString())
    (problem,) = _problems(data)
    assert (
        "tokenizer.model: no piece for a space (U+2581) alone, so a lone space would cost three byte tokens" in problem
    )


def test_another_tokenizer_of_the_same_size_is_a_warning(data: Path) -> None:
    (data / "tokenizer.model").write_bytes(_other_model(bos_id=1, eos_id=2, pad_id=0, unk_id=3))
    report = check_folder(data)
    assert report.is_ok
    assert report.vocab_size == VOCAB
    assert report.warnings == preflight(data).warnings
    assert "fineweb_train_000000.bin: of its first 1024 tokens" in report.warnings[0]
    assert "tokenizer.model probably did not write it" in report.warnings[0]


def test_several_problems_are_each_listed_once(data: Path) -> None:
    _truncate(data)
    _foreign(data)
    _twice(data)
    (data / "tokenizer.model").unlink()
    problems = _problems(data)
    assert len(problems) == 4, problems
    assert check_folder(data).data_sha is None


def test_a_missing_folder_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data folder"):
        preflight(tmp_path / "x")
    report = check_folder(tmp_path / "x")
    assert "no such data folder" in report.problems[-1]
    assert (report.train_tokens, report.val_tokens, report.vocab_size) == (0, 0, None)


def test_preflight_is_fast_and_does_not_read_shards(data: Path) -> None:
    """Reading these 50 sparse shards of 200 MB takes a minute: only samples are read, and a warning says so."""
    header = (data / "fineweb_train_000000.bin").read_bytes()[:8] + (100_000_000).to_bytes(4, "little")
    for shard in range(2, 52):
        with (data / f"fineweb_train_{shard:06d}.bin").open("wb") as file:
            file.write(header)
            file.seek(HEADER_BYTES)
            file.write(shard.to_bytes(2, "little"))  # no two are equal
            file.truncate(HEADER_BYTES + 200_000_000)
    started = time.perf_counter()
    report = preflight(data, vocab_size=VOCAB, seq_len=1024)
    elapsed_s = time.perf_counter() - started
    assert report.train_tokens == 5_000_009_000
    assert not report.is_full
    assert "only samples of the tokens were checked" in report.warnings[-1]
    assert elapsed_s < 2.0

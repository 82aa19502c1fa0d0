"""Byte counts of tokens equal a plain reference and the bytes of real text."""

import io
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as model_proto

from trainer.data.bytes_per_token import TokenBytes, count_bytes, load_processor, token_bytes
from trainer.errors import DataError

REAL_MODEL = Path(__file__).parents[4] / "shared/data/tokenizers/fineweb_1024_bpe.model"
PAD, BOS, EOS, UNK = range(4)

TEXTS = [
    "The quick brown fox.",
    "naïve café, 1,5 € – “quoted” … 日本語 한국어 Ω≈ç√ 🎉👩‍🔬 e\u0301",
    "tabs\tand\nnew lines\r\nand  double   spaces ",
    " leading space",
    "\u00a0no-break\u2003em space",
    "x" * 50 + "ж" * 20 + "𝔘𝔫𝔦" * 5,
    "\x00\x01\x7f controls",
    " ",
    "é",
]


def reference_bytes(processor: sentencepiece.SentencePieceProcessor, prev: list[int], targets: list[int]) -> int:
    """Count by the definition, token by token."""

    def is_boundary(token: int) -> bool:
        return bool(processor.is_control(token) or processor.is_unknown(token) or processor.is_unused(token))

    total = 0
    for before, token in zip(prev, targets, strict=True):
        piece = processor.id_to_piece(token)
        if is_boundary(token):
            continue
        if processor.is_byte(token):
            total += 1
        elif piece.startswith("\u2581"):
            total += len(piece[1:].encode("utf-8")) + (0 if is_boundary(before) else 1)
        else:
            total += len(piece.encode("utf-8"))
    return total


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer without normalization, like the embedded corpus's, with one piece marked unused."""
    raw = io.BytesIO()
    text = "\n".join(topics[key] for key in sorted(topics)[:30])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*text.splitlines(), "naïve café – “quoted”"] * 3),
        model_writer=raw,
        model_type="bpe",
        vocab_size=450,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        pad_id=PAD,
        bos_id=BOS,
        eos_id=EOS,
        unk_id=UNK,
        minloglevel=2,
    )
    proto = model_proto.ModelProto()
    proto.ParseFromString(raw.getvalue())
    proto.pieces[300].type = model_proto.ModelProto.SentencePiece.Type.UNUSED
    path = tmp_path_factory.mktemp("model") / "test.model"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture(scope="module", params=["trained", "sp1024"])
def model(request: pytest.FixtureRequest, model_path: Path) -> tuple[sentencepiece.SentencePieceProcessor, TokenBytes]:
    if request.param == "sp1024" and not REAL_MODEL.is_file():
        pytest.skip("the published sp1024 tokenizer is not on this machine")
    path = REAL_MODEL if request.param == "sp1024" else model_path
    return load_processor(path), token_bytes(path)


def test_table_covers_every_kind_of_token(model_path: Path) -> None:
    processor, table = load_processor(model_path), token_bytes(model_path)
    assert table.vocab_size == 450
    boundaries = np.flatnonzero(table.is_boundary).tolist()
    assert boundaries == [PAD, BOS, EOS, UNK, 300]
    assert not table.base_bytes[boundaries].any()
    assert not table.has_leading_space[boundaries].any()
    assert table.base_bytes[4 : 4 + 256].tolist() == [1] * 256  # byte tokens
    space = processor.piece_to_id("\u2581")
    assert (table.base_bytes[space], table.has_leading_space[space]) == (0, True)
    accent = processor.piece_to_id("é")
    assert (table.base_bytes[accent], table.has_leading_space[accent]) == (2, False)
    with pytest.raises(ValueError, match="read-only"):
        table.base_bytes[5] = 9


def test_counts_on_text_follow_the_definition(model: tuple[sentencepiece.SentencePieceProcessor, TokenBytes]) -> None:
    processor, table = model
    for text in [*TEXTS, topics["for"], topics["strings"]]:
        tokens = [BOS, *processor.encode(text), EOS, UNK, *processor.encode(text), PAD, BOS, *processor.encode(" x")]
        expected = reference_bytes(processor, tokens[:-1], tokens[1:])
        assert count_bytes(table, np.array(tokens[:-1], np.uint16), np.array(tokens[1:], np.uint16)) == expected


def test_counts_on_random_tokens_follow_the_definition(
    model: tuple[sentencepiece.SentencePieceProcessor, TokenBytes],
) -> None:
    processor, table = model
    rng = np.random.default_rng(11)
    tokens = rng.integers(0, table.vocab_size, 20_000).astype(np.uint16)
    tokens[rng.random(len(tokens)) < 0.1] = BOS
    tokens[rng.random(len(tokens)) < 0.1] = 300
    expected = reference_bytes(processor, tokens[:-1].tolist(), tokens[1:].tolist())
    assert count_bytes(table, tokens[:-1], tokens[1:]) == expected
    square = tokens[:-1][:19_600].reshape(140, 140), tokens[1:][:19_600].reshape(140, 140)
    assert count_bytes(table, *square) == count_bytes(table, tokens[:19_600], tokens[1:19_601])


def test_byte_fallback_counts_each_byte_once(model: tuple[sentencepiece.SentencePieceProcessor, TokenBytes]) -> None:
    processor, table = model
    tokens = [BOS, *processor.encode("日𑀅")]
    assert sum(processor.is_byte(token) for token in tokens) >= 6
    assert count_bytes(table, np.array(tokens[:-1], int), np.array(tokens[1:], int)) == len(
        processor.decode(tokens[1:]).encode()
    )


def test_counts_add_up_to_the_decoded_text(model: tuple[sentencepiece.SentencePieceProcessor, TokenBytes]) -> None:
    """The published model normalizes (NFKC, spaces merged), so its text is what it decodes to."""
    processor, table = model
    for text in [*TEXTS, topics["for"], topics["strings"]]:
        tokens = [BOS, *processor.encode(text)]
        assert count_bytes(table, np.array(tokens[:-1], int), np.array(tokens[1:], int)) == len(
            processor.decode(tokens[1:]).encode()
        )


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=80))
@settings(max_examples=150, deadline=None)
def test_without_normalization_the_counts_are_the_bytes_of_the_text(model_path: Path, text: str) -> None:
    processor, table = load_processor(model_path), token_bytes(model_path)
    unused = processor.id_to_piece(300)
    tokens = [BOS, *processor.encode(text)]
    if 300 not in tokens:  # an unused piece is a boundary by definition: its text is not counted
        counted = count_bytes(table, np.array(tokens[:-1], int), np.array(tokens[1:], int))
        assert counted == len(text.encode()), (text, unused)


def test_no_space_is_counted_after_a_boundary(model_path: Path) -> None:
    processor, table = load_processor(model_path), token_bytes(model_path)
    the = processor.piece_to_id("\u2581the")
    for boundary in (PAD, BOS, EOS, UNK, 300):
        assert count_bytes(table, np.array([boundary]), np.array([the])) == 3
    assert count_bytes(table, np.array([the]), np.array([the])) == 4
    assert count_bytes(table, np.array([the]), np.array([BOS])) == 0


def test_shapes_must_agree(model_path: Path) -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        count_bytes(token_bytes(model_path), np.zeros(3, int), np.zeros(2, int))


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such tokenizer"):
        token_bytes(tmp_path / "x.model")
    (tmp_path / "x.model").write_bytes(b"not a model at all")
    with pytest.raises(DataError, match=r"x\.model: not a SentencePiece model"):
        token_bytes(tmp_path / "x.model")
    (tmp_path / "x.model").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.model: not a SentencePiece model"):
        token_bytes(tmp_path / "x.model")

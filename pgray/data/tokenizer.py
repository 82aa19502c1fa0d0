"""Train a SentencePiece tokenizer whose byte counts are exact.

It is like the challenge's `fineweb_1024_bpe.model`: BPE, byte fallback, split digits, pad 0, bos 1, eos 2, unk 3, a space
before each text. One difference is intended: text is not normalized (theirs is NFKC with spaces merged), so that the bytes
counted for a document are exactly the bytes of its text, which a test can check.

The model contains no path and no time, so equal texts give an equal file.
"""

import io
from collections.abc import Iterable

import sentencepiece

from trainer.data.bytes_per_token import SPACE

BOS = 1


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> bytes:
    """Train a BPE model and return its serialized `.model`.

    Args:
        texts: training text, one paragraph each; at least a few hundred kilobytes for 1,024 pieces.
        vocab_size: number of pieces, including 260 for bytes and special tokens. One of them is U+2581 alone, so that a
            space is one token and one byte.
    Raises:
        ValueError: too little text for that many pieces.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=0.999,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            pad_id=0,
            bos_id=BOS,
            eos_id=2,
            unk_id=3,
            num_threads=1,  # the file must not depend on the machine
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(f"cannot train {vocab_size} pieces on this text: {error}") from None
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    if processor.vocab_size() != vocab_size or processor.piece_to_id(SPACE) == processor.unk_id():
        raise ValueError(f"got {processor.vocab_size()} pieces, expected {vocab_size} with U+2581 alone among them")
    return model.getvalue()


def encode_documents(model: bytes, documents: Iterable[str]) -> Iterable[list[int]]:
    """Yield the token ids of each document. Each begins with BOS, as in the published shards."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    for document in documents:
        yield [BOS, *processor.encode(document, out_type=int)]

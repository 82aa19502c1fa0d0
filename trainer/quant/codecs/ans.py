"""Asymmetric numeral systems: code each array by its own exact histogram (library constriction)."""

import struct
import zlib
from collections.abc import Sequence

import constriction
import numpy as np
import numpy.typing as npt

from trainer.quant.codecs._base import Codec, Symbols


class Ans(Codec):
    """Write per array: lowest symbol int8, number of levels - 1 uint8, the counts uint32, number of words uint32, the words.

    All of it is compressed with zlib, which only shortens the histograms.
    """

    def bytes_per_tensor(self, bits: int) -> float:
        return float(1.6 * 2**bits + 60)  # the histogram after zlib, measured

    def compress(self, arrays: Sequence[Symbols]) -> bytes:
        return zlib.compress(b"".join(_encode(array) for array in arrays), 1)

    def decompress(self, blob: bytes, sizes: Sequence[int]) -> list[Symbols]:
        raw = zlib.decompress(blob)
        arrays, offset = [], 0
        for size in sizes:
            array, offset = _decode(raw, offset, size)
            arrays.append(array)
        return arrays


def _model(counts: npt.NDArray[np.uint32]) -> object:
    probabilities = counts.astype(np.float64) / counts.sum()
    return constriction.stream.model.Categorical(probabilities, perfect=False)


def _encode(array: Symbols) -> bytes:
    if array.size == 0:
        return b""
    lowest = int(array.min())
    levels = array.astype(np.int32) - lowest
    counts = np.bincount(levels).astype(np.uint32)
    head = struct.pack("<bB", lowest, len(counts) - 1) + counts.astype("<u4").tobytes()
    if len(counts) == 1:
        return head
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(levels, _model(counts))
    words: npt.NDArray[np.uint32] = coder.get_compressed().astype("<u4")
    return head + struct.pack("<I", len(words)) + words.tobytes()


def _decode(raw: bytes, offset: int, size: int) -> tuple[Symbols, int]:
    """Return the array at `offset` and the offset of the next one."""
    if size == 0:
        return np.zeros(0, np.int8), offset
    lowest, levels = struct.unpack_from("<bB", raw, offset)
    offset += 2
    counts = np.frombuffer(raw, "<u4", levels + 1, offset).astype(np.uint32)
    offset += 4 * (levels + 1)
    if levels == 0:
        return np.full(size, lowest, np.int8), offset
    (num_words,) = struct.unpack_from("<I", raw, offset)
    words = np.frombuffer(raw, "<u4", num_words, offset + 4).astype(np.uint32)
    coder = constriction.stream.stack.AnsCoder(words)
    symbols = coder.decode(_model(counts), size)
    return (symbols + lowest).astype(np.int8), offset + 4 + 4 * num_words


CODEC = Ans(size_factors=(1.0, 1.0, 1.0))

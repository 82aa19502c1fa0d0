"""Lossless codecs for the symbol stream, by name. `ans` codes each tensor by its own histogram; the others see bytes.

A codec turns named int8 arrays into bytes and back. Order-0 entropy is the yardstick (`entropy_bytes`): on Gaussian
rows ans reaches it, zstd is 1-2 % above, lzma 3-7 %.
"""

import lzma
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import brotli
import constriction
import numpy as np
import numpy.typing as npt
import zstandard

Symbols = npt.NDArray[np.int8]


class Codec(ABC):
    """compress and decompress are inverse for every list of int8 arrays; sizes are known to the reader."""

    @abstractmethod
    def compress(self, arrays: Sequence[Symbols]) -> bytes: ...

    @abstractmethod
    def decompress(self, blob: bytes, sizes: Sequence[int]) -> list[Symbols]: ...


class ByteCodec(Codec):
    """All arrays laid end to end, then a general-purpose compressor."""

    @abstractmethod
    def squeeze(self, raw: bytes) -> bytes: ...

    @abstractmethod
    def expand(self, blob: bytes) -> bytes: ...

    def compress(self, arrays: Sequence[Symbols]) -> bytes:
        return self.squeeze(b"".join(array.tobytes() for array in arrays))

    def decompress(self, blob: bytes, sizes: Sequence[int]) -> list[Symbols]:
        flat = np.frombuffer(self.expand(blob), dtype=np.int8)
        if flat.size != sum(sizes):
            raise ValueError(f"symbol stream holds {flat.size} symbols, the header says {sum(sizes)}")
        return list(np.split(flat, np.cumsum(sizes)[:-1])) if sizes else []


class Zlib(ByteCodec):
    def squeeze(self, raw: bytes) -> bytes:
        return zlib.compress(raw, 9)

    def expand(self, blob: bytes) -> bytes:
        return zlib.decompress(blob)


class Zstd(ByteCodec):
    def squeeze(self, raw: bytes) -> bytes:
        return zstandard.ZstdCompressor(level=22).compress(raw)

    def expand(self, blob: bytes) -> bytes:
        return zstandard.ZstdDecompressor().decompress(blob)


class Lzma(ByteCodec):
    def squeeze(self, raw: bytes) -> bytes:
        return lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)

    def expand(self, blob: bytes) -> bytes:
        return lzma.decompress(blob)


class Brotli(ByteCodec):
    def squeeze(self, raw: bytes) -> bytes:
        return bytes(brotli.compress(raw, quality=11, lgwin=24))

    def expand(self, blob: bytes) -> bytes:
        return bytes(brotli.decompress(blob))


class Ans(Codec):
    """Asymmetric numeral systems over each array's exact histogram (library constriction).

    Per array: lowest symbol int8, number of levels uint8, that many uint32 counts, number of uint32 words, the words.
    """

    def compress(self, arrays: Sequence[Symbols]) -> bytes:
        return zlib.compress(b"".join(self._encode(array) for array in arrays), 1)

    def decompress(self, blob: bytes, sizes: Sequence[int]) -> list[Symbols]:
        raw = zlib.decompress(blob)
        arrays, offset = [], 0
        for size in sizes:
            array, offset = self._decode(raw, offset, size)
            arrays.append(array)
        return arrays

    @staticmethod
    def _model(counts: npt.NDArray[np.uint32]) -> object:
        probabilities = counts.astype(np.float64) / counts.sum()
        return constriction.stream.model.Categorical(probabilities, perfect=False)

    def _encode(self, array: Symbols) -> bytes:
        if array.size == 0:
            return b""
        lowest = int(array.min())
        levels = array.astype(np.int32) - lowest
        counts = np.bincount(levels).astype(np.uint32)
        head = struct.pack("<bB", lowest, len(counts) - 1) + counts.astype("<u4").tobytes()
        if len(counts) == 1:
            return head
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(levels, self._model(counts))
        words: npt.NDArray[np.uint32] = coder.get_compressed().astype("<u4")
        return head + struct.pack("<I", len(words)) + words.tobytes()

    def _decode(self, raw: bytes, offset: int, size: int) -> tuple[Symbols, int]:
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
        symbols = coder.decode(self._model(counts), size)
        return (symbols + lowest).astype(np.int8), offset + 4 + 4 * num_words


CODECS: dict[str, Codec] = {"zlib": Zlib(), "zstd": Zstd(), "lzma": Lzma(), "brotli": Brotli(), "ans": Ans()}


def entropy_bytes(array: Symbols) -> float:
    """Order-0 entropy of the symbols, in bytes: what an ideal coder with the array's own histogram needs."""
    if array.size == 0:
        return 0.0
    counts = np.bincount(array.astype(np.int16) + 128)
    p = counts[counts > 0] / array.size
    return float(-(p * np.log2(p)).sum() * array.size / 8)

"""The interface of a codec, and the one class that covers every general-purpose compressor."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Symbols = npt.NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Codec(ABC):
    """Compress a list of int8 arrays into bytes and back, without loss.

    Args:
        size_factors: compressed bytes over order-0 entropy at 4, 6 and 8 bits, from which `pgray plan` predicts sizes.
            Measure them on Gaussian 512 x 512 matrices with absmax scales. On small trained models, codecs that see
            more than one symbol at a time do up to 4 % better, because they find the columns that differ in scale.
            The default is a guess for a codec that has not been measured.
    """

    size_factors: tuple[float, float, float] = (1.05, 1.02, 1.01)

    @abstractmethod
    def compress(self, arrays: Sequence[Symbols]) -> bytes: ...

    @abstractmethod
    def decompress(self, blob: bytes, sizes: Sequence[int]) -> list[Symbols]:
        """Return the arrays that `compress` was given. `sizes`: elements of each array."""

    def size_factor(self, bits: int) -> float:
        """Interpolate `size_factors` for symbols of 2 to 8 bits."""
        at4, at6, at8 = self.size_factors
        return at4 + (at6 - at4) * (bits - 4) / 2 if bits <= 6 else at6 + (at8 - at6) * (bits - 6) / 2

    def bytes_per_tensor(self, bits: int) -> float:
        """Estimate the bytes that the codec adds to each tensor, such as a histogram."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class ByteCodec(Codec):
    """Concatenate all arrays and compress them with a general-purpose compressor.

    Args:
        squeeze: compresses bytes.
        expand: the inverse of `squeeze`.
    """

    squeeze: Callable[[bytes], bytes]
    expand: Callable[[bytes], bytes]

    def compress(self, arrays: Sequence[Symbols]) -> bytes:
        return self.squeeze(b"".join(array.tobytes() for array in arrays))

    def decompress(self, blob: bytes, sizes: Sequence[int]) -> list[Symbols]:
        flat = np.frombuffer(self.expand(blob), dtype=np.int8)
        if flat.size != sum(sizes):
            raise ValueError(f"the symbol stream holds {flat.size} symbols, the header promises {sum(sizes)}")
        return list(np.split(flat, np.cumsum(sizes)[:-1])) if sizes else []

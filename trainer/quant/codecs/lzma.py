"""LZMA from the standard library, preset 9 extreme."""

import lzma

from trainer.quant.codecs._base import ByteCodec

CODEC = ByteCodec(
    squeeze=lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME),
    expand=lzma.decompress,
    size_factors=(1.049, 1.024, 1.015),
)

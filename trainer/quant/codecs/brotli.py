"""Brotli, quality 11, with the largest window."""

import brotli

from trainer.quant.codecs._base import ByteCodec

CODEC = ByteCodec(
    squeeze=lambda raw: bytes(brotli.compress(raw, quality=11, lgwin=24)),
    expand=lambda blob: bytes(brotli.decompress(blob)),
    size_factors=(1.014, 1.007, 1.005),
)

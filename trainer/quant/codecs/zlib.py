"""DEFLATE from the standard library, level 9."""

import zlib

from trainer.quant.codecs._base import ByteCodec

CODEC = ByteCodec(squeeze=lambda raw: zlib.compress(raw, 9), expand=zlib.decompress, size_factors=(1.165, 1.048, 1.010))

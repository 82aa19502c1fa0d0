"""The sections `quant` and `export`: bit widths, scales, clipping, codec. Torch-free."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from trainer.section import Section


def _bits(value: int) -> int:
    if value not in (2, 3, 4, 5, 6, 7, 8, 16):
        raise ValueError("bits must be 2 to 8 (integers) or 16 (fp16)")
    return value


Bits = Annotated[int, AfterValidator(_bits)]


class BitsConfig(Section):
    mlp: Bits = 8
    attn: Bits = 8
    embed: Bits = 8
    bigram: Bits = 8
    value_embed: Bits = 8
    other: Bits = 8


class QuantConfig(Section):
    bits: BitsConfig = BitsConfig()
    group_rows: int = Field(1, ge=1)  # rows that share one scale
    clip: Literal["absmax", "search", "sigma"] = "absmax"
    clip_sigma: float = Field(4.0, gt=0)
    scale_floor: float | None = Field(None, gt=0)
    keep_fp16: Annotated[tuple[str, ...], Field(strict=False)] = ()  # tensor-name patterns, as in fnmatch
    fp16_max_elements: int = Field(65_536, ge=0)  # tensors up to this size stay fp16
    prune_frac: float = Field(0.0, ge=0, lt=1)
    svd_rank: int = Field(0, ge=0)


class ExportConfig(Section):
    codec: Literal["zlib", "zstd", "lzma", "brotli", "ans"] = "zlib"

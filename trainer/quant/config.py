"""The sections `quant` and `export`: bit widths, scales, clipping, codec. Torch-free."""

from typing import Annotated

from pydantic import AfterValidator, Field

from trainer.quant.codecs import check_codec_name
from trainer.quant.scheme import Clip
from trainer.section import Section


def _bits(value: int) -> int:
    if value not in (2, 3, 4, 5, 6, 7, 8, 16):
        raise ValueError("bits must be 2 to 8 (integers) or 16 (fp16)")
    return value


Bits = Annotated[int, AfterValidator(_bits)]


class BitsConfig(Section):
    mlp: Bits = 8  # MLP matrices; 16 = fp16, not quantized
    attn: Bits = 8  # attention matrices
    embed: Bits = 8  # token embedding, tied to the output
    bigram: Bits = 8  # bigram table and projection
    value_embed: Bits = 8  # value embedding table and projection
    other: Bits = 8  # LoRA matrices and depth gates of recurrence


class QuantConfig(Section):
    bits: BitsConfig = BitsConfig()
    group_rows: int = Field(1, ge=1)  # rows that share one scale
    clip: Clip = "absmax"  # absmax, sigma, a fixed percentile, or search: the percentile with least squared error
    clip_sigma: float = Field(4.0, gt=0)  # only for clip sigma: standard deviations
    clip_percentile: float = Field(99.99984, gt=0, le=100)  # only for clip percentile: of each row's magnitudes
    int8_clip: Clip | None = None  # clip of matrices of 8 bits, which have levels to spare; null = as clip
    scale_floor: float | None = Field(None, gt=0)  # smallest scale; null = the smallest positive fp16
    clip_floor: float | None = Field(
        None, gt=0
    )  # smallest clip value; null = none; published: 1, a scale of 1/31 at int6
    keep_fp16: Annotated[tuple[str, ...], Field(strict=False)] = ()  # names or patterns, such as `attn_*`, kept in fp16
    fp16_max_elements: int = Field(65_536, ge=0)  # tensors up to this size stay fp16
    prune_frac: float = Field(0.0, ge=0, lt=1)  # smallest share of each matrix set to zero before quantization
    svd_rank: int = Field(0, ge=0)  # store a matrix as two factors of this rank where that is smaller; 0 = never


class ExportConfig(Section):
    codec: Annotated[str, AfterValidator(check_codec_name)] = "zlib"  # lossless compressor of the packed weights

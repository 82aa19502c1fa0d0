"""Every codec found in `trainer/quant/codecs/` is lossless, has size factors and can be planned; a new one is one file."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import InputError
from trainer.presets.resolve import build_config
from trainer.quant import codecs
from trainer.quant.artifact import entropy_bytes
from trainer.quant.codecs import codec_names, load_codec

TOY = """
from trainer.quant.codecs._base import ByteCodec

CODEC = ByteCodec(squeeze=lambda raw: raw[::-1], expand=lambda blob: blob[::-1])
"""


@pytest.mark.parametrize("codec", codec_names())
@settings(max_examples=25, deadline=None)
@given(arrays=st.lists(st.lists(st.integers(-127, 127), max_size=300), max_size=5))
def test_every_codec_is_lossless(codec: str, arrays: list[list[int]]) -> None:
    symbols = [np.array(a, dtype=np.int8) for a in arrays]
    blob = load_codec(codec).compress(symbols)
    back = load_codec(codec).decompress(blob, [a.size for a in symbols])
    assert [b.tolist() for b in back] == arrays


@pytest.mark.parametrize("codec", codec_names())
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_size_factors_match_what_the_codec_does(codec: str, bits: int) -> None:
    """On the matrices that the factors were measured on."""
    q_max = 2 ** (bits - 1) - 1
    weights = np.random.default_rng(0).normal(size=(512, 512))
    scales = np.abs(weights).max(axis=1, keepdims=True) / q_max
    symbols = np.round(weights / scales).astype(np.int8).ravel()
    found = load_codec(codec)
    predicted = entropy_bytes(symbols) * found.size_factor(bits) + found.bytes_per_tensor(bits)
    assert len(found.compress([symbols])) == pytest.approx(predicted, rel=0.01)


def test_entropy_coding_reaches_order_zero_entropy() -> None:
    rng = np.random.default_rng(0)
    symbols = np.clip(np.round(rng.normal(0, 8, 400_000)), -31, 31).astype(np.int8)
    ideal = entropy_bytes(symbols)
    assert ideal <= len(load_codec("ans").compress([symbols])) <= 1.005 * ideal
    assert entropy_bytes(np.repeat(np.arange(4, dtype=np.int8), 100)) == pytest.approx(100.0)  # 2 bits x 400


def test_a_new_codec_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"export.codec: toy: must be one of ans, brotli, lzma, zlib, zstd"):
        build_config({"export.codec": "toy"}, "test")
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(codecs, "__path__", [*codecs.__path__, str(tmp_path)])
    assert "toy" in codec_names()
    assert build_config({"export.codec": "toy"}, "test").export.codec == "toy"
    assert load_codec("toy").compress([np.array([1, 2], np.int8)]) == b"\2\1"
    assert load_codec("toy").size_factor(5) == pytest.approx(1.035)


def test_a_damaged_header_imports_nothing() -> None:
    for name in ("_base", "..export", "os", ""):
        with pytest.raises(ValueError, match="must be one of"):
            load_codec(name)

"""Packs a model into one file, the artifact, and unpacks it. No pickle.

    b"PGRAY1\\0\\0" | u32 header bytes | u32 symbol bytes | u32 float bytes | header | symbols | floats

header: zlib-compressed JSON: the model's config, the codec, per tensor its name, class, shape, bits and crc32.
symbols: all int8 symbols through the codec. floats: scales (fp16), fp16 and fp32 tensors, through zlib.
All numbers are little-endian. Unpacking gives the dequantized weights bit for bit, or an error that names the tensor.
"""

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from trainer.config import Config
from trainer.errors import DataError
from trainer.quant.codecs import load_codec
from trainer.quant.codecs._base import Symbols
from trainer.quant.export import StoredAs, StoredTensor, assemble
from trainer.quant.scheme import num_groups
from trainer.quant.tensor_classes import TensorClass
from trainer.records.results import TensorBytes

MAGIC = b"PGRAY1\0\0"
_LENGTHS = struct.Struct("<III")
_CLASSES = (*get_args(TensorClass), "control")
_KINDS: tuple[StoredAs, ...] = ("int", "fp16", "fp32", "svd")
_MODEL_SECTIONS = {"model", "recurrence", "quant"}


@dataclass(frozen=True)
class Artifact:
    """An unpacked artifact. `config` has only the sections that the model needs; `weights`: parameter name -> float32."""

    config: Config
    stored: list[StoredTensor]

    @property
    def weights(self) -> dict[str, Tensor]:
        return assemble(self.stored)


def pack(stored: list[StoredTensor], config: Config) -> bytes:
    """Return the artifact's bytes. Equal tensors and config give equal bytes."""
    symbols: list[Symbols] = []
    floats: list[bytes] = []
    entries = []
    for tensor in stored:
        ints, raw = _symbols_of(tensor), _floats_of(tensor)
        symbols += ints
        floats.append(raw)
        indices = [_CLASSES.index(tensor.tensor_class), _KINDS.index(tensor.stored_as)]
        rank = tensor.parts[0][0].size(1) if tensor.stored_as == "svd" else 0
        crc = _checksum(ints, raw)
        entries.append([tensor.name, *indices, tensor.shape, tensor.bits, tensor.group_rows, rank, crc])
    header = {
        "config": config.model_dump(mode="json", include=_MODEL_SECTIONS, exclude_defaults=True),
        "codec": config.export.codec,
        "tensors": entries,
    }
    head = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    body = load_codec(config.export.codec).compress(symbols)
    tail = zlib.compress(b"".join(floats), 9)
    return MAGIC + _LENGTHS.pack(len(head), len(body), len(tail)) + head + body + tail


def unpack(blob: bytes, origin: object = "artifact") -> Artifact:
    """Return the stored tensors in an artifact's bytes.

    Raises:
        DataError: no artifact, truncated, or a tensor whose checksum does not match; names `origin` and the tensor.
    """
    start = len(MAGIC) + _LENGTHS.size
    if len(blob) < start or blob[: len(MAGIC)] != MAGIC:
        raise DataError(origin, f"starts with {blob[:8]!r}, not {MAGIC!r}", "this is not a pgray artifact")
    head_len, body_len, tail_len = _LENGTHS.unpack_from(blob, len(MAGIC))
    expected = start + head_len + body_len + tail_len
    if len(blob) != expected:
        raise DataError(origin, f"{len(blob)} bytes where the header promises {expected}", "truncated; copy it again")
    try:
        header: dict[str, Any] = json.loads(zlib.decompress(blob[start : start + head_len]))
        entries = [_Entry(*fields) for fields in header["tensors"]]
        sizes = [rows * cols for entry in entries for rows, cols in entry.part_shapes]
        body = blob[start + head_len : start + head_len + body_len]
        symbols = iter(load_codec(header["codec"]).decompress(body, sizes))
        tail = zlib.decompress(blob[start + head_len + body_len :])
        config = Config.model_validate_json(json.dumps({**header["config"], "export": {"codec": header["codec"]}}))
    except Exception as error:
        raise DataError(
            origin, f"cannot be decoded ({type(error).__name__}: {error})", "corrupt; copy it again"
        ) from None
    stored, offset = [], 0
    for entry in entries:
        parts = [next(symbols) for _ in entry.part_shapes]
        float_bytes = tail[offset : offset + entry.float_bytes]
        offset += entry.float_bytes
        if _checksum(parts, float_bytes) != entry.crc:
            raise DataError(origin, f"tensor {entry.name}: checksum does not match", "corrupt; copy it again")
        stored.append(entry.restore(parts, float_bytes))
    return Artifact(config, stored)


def read_artifact(path: Path) -> Artifact:
    return unpack(path.read_bytes(), path)


def entropy_bytes(array: Symbols) -> float:
    """Return the order-0 entropy of the symbols in bytes: what an ideal coder with the array's own histogram needs."""
    if array.size == 0:
        return 0.0
    counts = np.bincount(array.astype(np.int16) + 128)
    p = counts[counts > 0] / array.size
    return float(-(p * np.log2(p)).sum() * array.size / 8)


def byte_ledger(stored: list[StoredTensor]) -> list[TensorBytes]:
    """Return, per tensor, the bytes of an ideal order-0 coder: the entropy of its symbols plus its floats as stored."""
    return [
        TensorBytes(
            name=tensor.name,
            tensor_class=tensor.tensor_class,
            stored_as=tensor.stored_as,
            bits=tensor.bits,
            num_elements=math.prod(tensor.shape),
            entropy_bytes=sum(entropy_bytes(s) for s in _symbols_of(tensor)) + len(_floats_of(tensor)),
        )
        for tensor in stored
    ]


@dataclass(frozen=True)
class _Entry:
    """One tensor's entry in the header."""

    name: str
    class_index: int
    kind: int
    shape: list[int]
    bits: int
    group_rows: int
    rank: int
    crc: int

    @property
    def stored_as(self) -> StoredAs:
        return _KINDS[self.kind]

    @property
    def part_shapes(self) -> list[tuple[int, int]]:
        """Return the shapes of the integer matrices: none for floats, one, or two factors."""
        if self.stored_as not in ("int", "svd"):
            return []
        rows, cols = self.shape
        return [(rows, cols)] if self.stored_as == "int" else [(rows, self.rank), (self.rank, cols)]

    @property
    def float_bytes(self) -> int:
        if self.part_shapes:
            return sum(2 * num_groups(rows, self.group_rows) for rows, _ in self.part_shapes)
        return math.prod(self.shape) * (2 if self.stored_as == "fp16" else 4)

    def restore(self, symbols: list[Symbols], float_bytes: bytes) -> StoredTensor:
        shape, tensor_class = tuple(self.shape), _CLASSES[self.class_index]
        tensor = StoredTensor(self.name, tensor_class, self.stored_as, shape, self.bits, self.group_rows)
        floats = torch.from_numpy(np.frombuffer(float_bytes, "<f4" if self.stored_as == "fp32" else "<f2").copy())
        if not self.part_shapes:
            return replace(tensor, data=floats.reshape(self.shape))
        scales = floats.split_with_sizes([num_groups(rows, self.group_rows) for rows, _ in self.part_shapes])
        q = [torch.from_numpy(flat.reshape(size).copy()) for flat, size in zip(symbols, self.part_shapes, strict=True)]
        return replace(tensor, parts=tuple(zip(q, scales, strict=True)))


def _checksum(symbols: list[Symbols], float_bytes: bytes) -> int:
    return zlib.crc32(float_bytes, zlib.crc32(b"".join(array.tobytes() for array in symbols)))


def _symbols_of(tensor: StoredTensor) -> list[Symbols]:
    return [q.contiguous().numpy().ravel() for q, _ in tensor.parts]


def _floats_of(tensor: StoredTensor) -> bytes:
    if tensor.data is not None:
        dtype = "<f2" if tensor.stored_as == "fp16" else "<f4"
        return bytes(tensor.data.contiguous().numpy().astype(dtype).tobytes())
    return b"".join(scale.contiguous().numpy().astype("<f2").tobytes() for _, scale in tensor.parts)


def equal_weights(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Return whether two sets of weights are equal, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[n].cpu(), b[n].cpu()) for n in a)

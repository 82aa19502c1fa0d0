"""Packs a model into one file, the artifact, and unpacks it. No pickle.

    b"PGRAY1\\0\\0" | u32 header bytes | u32 symbol bytes | u32 float bytes | header | symbols | floats

header: zlib-compressed JSON: the model's config, the codec, per tensor its name, class, shape, bits and crc32.
symbols: all int8 symbols through the codec. floats: scales (fp16), fp16 and fp32 tensors, through zlib.
All numbers are little-endian. Unpacking gives the dequantized weights bit for bit, or an error that names the tensor.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from trainer.config import Config
from trainer.errors import DataError
from trainer.quant.codecs import load_codec
from trainer.quant.codecs._base import Symbols
from trainer.quant.export import StoredTensor, assemble
from trainer.quant.scheme import num_groups
from trainer.quant.tensor_classes import TensorClass
from trainer.records.results import TensorBytes

MAGIC = b"PGRAY1\0\0"
_LENGTHS = struct.Struct("<III")
_CLASSES = (*get_args(TensorClass), "control")
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
        raw = _symbols_of(tensor)
        float_bytes = _floats_of(tensor)
        symbols.extend(raw)
        floats.append(float_bytes)
        crc = zlib.crc32(float_bytes, zlib.crc32(b"".join(r.tobytes() for r in raw)))
        rank = tensor.parts[0][0].size(1) if tensor.stored_as == "svd" else 0
        kind = ("int", "fp16", "fp32", "svd").index(tensor.stored_as)
        shape, rest = list(tensor.shape), [tensor.bits, tensor.group_rows, rank]
        entries.append([tensor.name, _CLASSES.index(tensor.tensor_class), kind, shape, *rest, crc])
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
    if len(blob) != start + head_len + body_len + tail_len:
        expected = start + head_len + body_len + tail_len
        raise DataError(origin, f"{len(blob)} bytes where the header promises {expected}", "truncated; copy it again")
    try:
        header: dict[str, Any] = json.loads(zlib.decompress(blob[start : start + head_len]))
        entries = [_Entry(*fields) for fields in header["tensors"]]
        sizes = [size for entry in entries for size in entry.symbol_sizes]
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
        parts = [next(symbols) for _ in entry.symbol_sizes]
        float_bytes = tail[offset : offset + entry.float_bytes]
        offset += entry.float_bytes
        if zlib.crc32(float_bytes, zlib.crc32(b"".join(p.tobytes() for p in parts))) != entry.crc:
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
            num_elements=tensor.num_elements,
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
    def part_shapes(self) -> list[tuple[int, int]]:
        """Return the shapes of the integer matrices: none for floats, one, or two factors."""
        if self.kind == 0:
            return [(self.shape[0], self.shape[1])]
        if self.kind == 3:
            return [(self.shape[0], self.rank), (self.rank, self.shape[1])]
        return []

    @property
    def symbol_sizes(self) -> list[int]:
        return [rows * cols for rows, cols in self.part_shapes]

    @property
    def float_bytes(self) -> int:
        if self.kind in (1, 2):
            return int(np.prod(self.shape)) * (2 if self.kind == 1 else 4)
        return sum(2 * num_groups(rows, self.group_rows) for rows, _ in self.part_shapes)

    def restore(self, symbols: list[Symbols], float_bytes: bytes) -> StoredTensor:
        stored_as = ("int", "fp16", "fp32", "svd")[self.kind]
        common = (self.name, _CLASSES[self.class_index], stored_as, tuple(self.shape), self.bits, self.group_rows)
        if self.kind in (1, 2):
            dtype = np.dtype("<f2" if self.kind == 1 else "<f4")
            data = torch.from_numpy(np.frombuffer(float_bytes, dtype).copy()).reshape(self.shape)
            return StoredTensor(*common, data=data)  # type: ignore[arg-type]
        scales = np.frombuffer(float_bytes, "<f2").copy()
        parts, offset = [], 0
        for flat, (rows, cols) in zip(symbols, self.part_shapes, strict=True):
            groups = num_groups(rows, self.group_rows)
            q = torch.from_numpy(flat.reshape(rows, cols).copy())
            parts.append((q, torch.from_numpy(scales[offset : offset + groups])))
            offset += groups
        return StoredTensor(*common, parts=tuple(parts))  # type: ignore[arg-type]


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

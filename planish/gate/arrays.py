"""Headers of the arrays in ``.npz`` and ``.safetensors`` files; no value is read.

Format of ``.npy`` members: numpy's NEP 1, "Format Specification".
"""

from __future__ import annotations

import ast
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from planish.contract.errors import InvalidData, MissingPart
from planish.gate.archive import Archive, Entry, read_archive
from planish.gate.parquet import looks_like_parquet
from planish.gate.safetensors import looks_like_safetensors, read_tensors

MAX_NPY_HEADER = 10_000
MAX_RANK = 32

_NUMPY_NAMES = {
    "b1": "bool",
    "u1": "uint8",
    "i1": "int8",
    "u2": "uint16",
    "i2": "int16",
    "f2": "float16",
    "u4": "uint32",
    "i4": "int32",
    "f4": "float32",
    "u8": "uint64",
    "i8": "int64",
    "f8": "float64",
}
_SAFETENSORS_DESCR = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
    "I64": "<i8",
    "U64": "<u8",
    "F64": "<f8",
}


@dataclass(frozen=True)
class ArrayHeader:
    """One array and where its values lie.

    Attributes:
        name: as the user named it.
        shape: sizes, outermost first.
        dtype: numpy's name (``uint8``), or what the file says where it is no plain number.
        descr: numpy's type string with the byte order (``<f4``); None where it is no plain number.
        fortran: whether the first dimension runs fastest.
        offset: where the values begin in the file, or in the decompressed member.
        member: the zip member to decompress or to verify; None in safetensors.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    descr: str | None
    fortran: bool
    offset: int
    member: Entry | None


def identify_data(path: Path) -> str:
    """Return ``npz``, ``safetensors`` or ``parquet`` by the file's content.

    Raises:
        MissingPart: the file is empty.
        InvalidData: it is none of them.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(64)
    if not size:
        raise MissingPart("the data file is empty")
    if head.startswith(b"PK\x03\x04"):
        return "npz"
    if looks_like_safetensors(head, size):
        return "safetensors"
    if looks_like_parquet(head):
        return "parquet"
    found = "; this is a single .npy array, save it with numpy.savez(path, inputs=...)"
    hint = found if head.startswith(b"\x93NUMPY") else ""
    raise InvalidData(
        f"data must be an .npz (numpy.savez), a .safetensors or a .parquet file{hint}"
    )


def read_headers(path: Path) -> tuple[ArrayHeader, ...]:
    """Return the arrays of a data file.

    Raises:
        InvalidData: the file is neither ``.npz`` nor ``.safetensors``, damaged or cut short.
    """
    kind = identify_data(path)
    if kind == "parquet":
        raise InvalidData("the file is .parquet, which has columns in place of arrays")
    if kind == "safetensors":
        return tuple(
            ArrayHeader(
                t.name, t.shape, _safe_name(t.dtype), _SAFETENSORS_DESCR.get(t.dtype), False,
                t.offset, None,
            )
            for t in read_tensors(path, InvalidData)
        )  # fmt: skip
    archive = read_archive(path, InvalidData, allow_deflate=True)
    members = [entry for entry in archive.entries.values() if entry.name.endswith(".npy")]
    if not members:
        raise InvalidData("the zip file holds no .npy arrays; save the data with numpy.savez")
    return tuple(_npy(archive, entry) for entry in members)


def _safe_name(dtype: str) -> str:
    descr = _SAFETENSORS_DESCR.get(dtype)
    return _NUMPY_NAMES[descr[1:]] if descr else dtype


def _npy(archive: Archive, entry: Entry) -> ArrayHeader:
    head = b""
    for piece in archive.chunks(entry, MAX_NPY_HEADER):
        head += piece
        if len(head) >= MAX_NPY_HEADER + 12:
            break
    name = entry.name.removesuffix(".npy")
    version = head[6:8]
    prefix = 10 if version == b"\x01\x00" else 12
    if (
        not head.startswith(b"\x93NUMPY")
        or len(head) < prefix
        or version[:1] not in b"\x01\x02\x03"
    ):
        raise InvalidData(f"array {name!r} is not in numpy's format")
    length = struct.unpack_from("<H" if prefix == 10 else "<I", head, 8)[0]
    if length > MAX_NPY_HEADER or prefix + length > len(head):
        raise InvalidData(f"array {name!r} has a damaged header or one of a structured type")
    descr, fortran, shape = _fields(head[prefix : prefix + length], name)
    plain = descr[1:] in _NUMPY_NAMES and descr[0] in "<>|="
    if plain and math.prod(shape) * int(descr[2:]) != entry.size - prefix - length:
        raise InvalidData(f"array {name!r} is cut short: its shape {shape} needs other bytes")
    return ArrayHeader(
        name,
        shape,
        _NUMPY_NAMES[descr[1:]] if plain else descr,
        descr if plain else None,
        fortran,
        prefix + length + (0 if entry.deflated else entry.offset),
        entry,
    )


def _fields(raw: bytes, name: str) -> tuple[str, bool, tuple[int, ...]]:
    """Return descr, fortran_order and shape of a header, a Python dict literal."""
    try:
        fields = ast.literal_eval(raw.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise InvalidData(f"array {name!r} has a damaged header")
    descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    if not isinstance(descr, str) or len(descr) < 2:
        descr = "structured"
    if type(fortran) is not bool or not _is_shape(shape):
        raise InvalidData(f"array {name!r} has a damaged header")
    return descr, fortran, shape


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= MAX_RANK
        and all(type(size) is int and 0 <= size < 1 << 40 for size in shape)
    )

"""Arrays of a data file: mapped into memory where they are stored plainly, read where packed."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planish.contract.errors import InvalidData
from planish.gate.archive import Entry, read_archive
from planish.gate.arrays import ArrayHeader

MAX_UNPACKED = 16 << 30
Array = NDArray[np.generic]


def open_array(path: Path, header: ArrayHeader) -> Array:
    """Return the values of an array, read-only.

    Args:
        path: the file that `header` was read from.
        header: says type, shape and place.

    Raises:
        InvalidData: the bytes are damaged, or unpack to more than `MAX_UNPACKED`.
    """
    dtype, order = np.dtype(header.descr), "F" if header.fortran else "C"
    if not math.prod(header.shape):
        return np.empty(header.shape, dtype)
    if header.member is None or not header.member.deflated:
        if header.member is not None:
            _verify(path, header.member, header.name)
        mapped = np.memmap(
            path, np.uint8, "r", header.offset, math.prod(header.shape) * dtype.itemsize
        )
        values: Array = mapped.view(dtype)
    else:
        values = _unpack(path, header, header.member, dtype)
    return values.reshape(header.shape, order="F" if order == "F" else "C")


def _verify(path: Path, member: Entry, name: str) -> None:
    """Compare a member with its checksum, one megabyte at a time."""
    crc = 0
    for piece in read_archive(path, InvalidData, allow_deflate=True).chunks(member):
        crc = zlib.crc32(piece, crc)
    if crc != member.crc:
        raise InvalidData(f"array {name!r} is damaged: its checksum does not match")


def _unpack(path: Path, header: ArrayHeader, member: Entry, dtype: np.dtype[np.generic]) -> Array:
    """Decompress a member into memory of its declared size, never more."""
    if member.size > MAX_UNPACKED:
        raise InvalidData(
            f"array {header.name!r} unpacks to {member.size} bytes; at most {MAX_UNPACKED} are "
            "taken compressed; save it with numpy.savez"
        )
    content, at, crc = np.empty(member.size, np.uint8), 0, 0
    for piece in read_archive(path, InvalidData, allow_deflate=True).chunks(member):
        crc = zlib.crc32(piece, crc)
        content[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    if at != member.size or crc != member.crc:
        raise InvalidData(f"array {header.name!r} is damaged: its checksum does not match")
    return content[header.offset :].view(dtype)

"""Arrays of a data file: mapped into memory where they are stored plainly, read where packed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planish.contract.errors import InvalidData
from planish.gate.archive import Archive, Entry, read_archive
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
    dtype = np.dtype(header.descr)
    size = math.prod(header.shape) * dtype.itemsize
    if not size:
        return np.empty(header.shape, dtype)
    if header.member is not None and header.member.deflated:
        content = _unpack(path, header.name, header.member)
        raw = content[header.offset : header.offset + size]
    else:
        if header.member is not None:
            _archive(path).verify(header.member)
        raw = np.memmap(path, np.uint8, "r", header.offset, size)
    values: Array = raw.view(dtype).reshape(header.shape, order="F" if header.fortran else "C")
    return values


def _archive(path: Path) -> Archive:
    return read_archive(path, InvalidData, allow_deflate=True)


def _unpack(path: Path, name: str, member: Entry) -> NDArray[np.uint8]:
    """Decompress a member into memory of its declared size, never more."""
    if member.size > MAX_UNPACKED:
        raise InvalidData(
            f"array {name!r} unpacks to {member.size} bytes; at most {MAX_UNPACKED} are taken "
            "compressed; save it with numpy.savez"
        )
    content = np.empty(member.size, np.uint8)
    _archive(path).read_into(member, content.data)
    return content

"""Arrays of a data file: mapped into memory where they are stored plainly.

What is packed is unpacked once: into memory where it is small, else into a scratch file. So an
array larger than `SMALL` never lies in memory as a whole.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planish.contract.errors import InvalidData
from planish.gate.archive import Archive, Entry, read_archive
from planish.gate.arrays import ArrayHeader
from worker.engine.load.scratch import Scratch, disk_watched

MAX_UNPACKED = 16 << 30
SMALL = 64 << 20
_PIECE = 16 << 20
Array = NDArray[np.generic]


def open_array(path: Path, header: ArrayHeader, scratch: Scratch) -> Array:
    """Return the values of an array, read-only.

    Args:
        path: the file that `header` was read from.
        header: says type, shape and place; the shape may cover fewer values than are stored.
        scratch: takes what is unpacked.

    Raises:
        InvalidData: the bytes are damaged, or unpack to more than `MAX_UNPACKED`.
        StorageFull: the disk has no room for what is unpacked.
    """
    dtype = np.dtype(header.descr)
    size = math.prod(header.shape) * dtype.itemsize
    if not size:
        return np.empty(header.shape, dtype)
    if header.member is not None and header.member.deflated:
        raw = _unpack(path, header, header.member, scratch)
        raw = raw[:size] if len(raw) > size else raw
    else:
        if header.member is not None:
            _archive(path).verify(header.member)
        raw = np.memmap(path, np.uint8, "r", header.offset, size)
    values: Array = raw.view(dtype).reshape(header.shape, order="F" if header.fortran else "C")
    if header.fortran and values.ndim > 1 and size > SMALL:
        return _in_row_order(values, scratch)
    return values


class ArrayFile:
    """The arrays of one data file, each opened once.

    Args:
        path: an ``.npz`` or ``.safetensors`` file.
        scratch: takes what is unpacked.
    """

    def __init__(self, path: Path, scratch: Scratch) -> None:
        self._path, self._scratch = path, scratch
        self._opened: dict[str, Array] = {}

    def open(self, header: ArrayHeader) -> Array:
        """Return the values of an array; raises as `open_array`."""
        if header.name not in self._opened:
            self._opened[header.name] = open_array(self._path, header, self._scratch)
        return self._opened[header.name]


def pieces(values: Array) -> Iterator[tuple[int, Array]]:
    """Yield all samples in order, some 16 MiB at once, each piece with its first row's index."""
    rows = max(1, _PIECE // max(1, values[:1].nbytes))
    for start in range(0, len(values), rows):
        yield start, values[start : start + rows]
        let_go(values)


def span(values: Array) -> tuple[int, int]:
    """Return the smallest and the largest value of an array of integers that is not empty."""
    ends = [(int(piece.min()), int(piece.max())) for _, piece in pieces(values)]
    return min(low for low, _ in ends), max(high for _, high in ends)


def let_go(values: Array) -> None:
    """Take a large mapped array off this process's memory; the system keeps what it can in cache.

    Without it, every page that was ever read would count as this process's.
    """
    if values.nbytes <= SMALL:
        return
    base: object = values
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def _archive(path: Path) -> Archive:
    return read_archive(path, InvalidData, allow_deflate=True)


def _unpack(path: Path, header: ArrayHeader, member: Entry, scratch: Scratch) -> NDArray[np.uint8]:
    """Decompress a member of its declared size, never more; return it from the values on."""
    if member.size > MAX_UNPACKED:
        raise InvalidData(
            f"array {header.name!r} unpacks to {member.size} bytes; at most {MAX_UNPACKED} are "
            "taken compressed; save it with numpy.savez"
        )
    if member.size <= SMALL:
        content = np.empty(member.size, np.uint8)
        _archive(path).read_into(member, content.data)
        return content[header.offset :]
    place = scratch.file(member.size)
    with disk_watched(), place.open("wb") as file:
        _archive(path).copy_to(member, file)
    return np.memmap(place, np.uint8, "r", header.offset)


def _in_row_order(values: Array, scratch: Scratch) -> Array:
    """Copy an array whose first dimension runs fastest: a sample would lie all over the file."""
    place = scratch.file(values.nbytes)
    with disk_watched(), place.open("wb") as file:
        for _, piece in pieces(values):
            np.ascontiguousarray(piece).tofile(file)
    return np.memmap(place, values.dtype, "r", shape=values.shape)

"""Arrays that are too large to lie in memory, written row by row into one .safetensors file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from worker.engine.load.scratch import disk_watched

_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
}


@dataclass(frozen=True)
class Shape:
    """Type and sizes of an array, the samples first."""

    dtype: str
    sizes: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.sizes) * np.dtype(self.dtype).itemsize


class ArrayWriter:
    """Writes arrays of known shapes.

    Args:
        path: of the file; made anew.
        arrays: by name. The widest types come first, so that every value is aligned.
    """

    def __init__(self, path: Path, arrays: Mapping[str, Shape]) -> None:
        order = sorted(arrays, key=lambda name: -np.dtype(arrays[name].dtype).itemsize)
        ends = list(accumulate(arrays[name].nbytes for name in order))
        begins = [0, *ends[:-1]]
        header = {
            name: {
                "dtype": _NAMES[arrays[name].dtype],
                "shape": arrays[name].sizes,
                "data_offsets": (begin, end),
            }
            for name, begin, end in zip(order, begins, ends, strict=True)
        }
        raw = json.dumps(header).encode()
        raw += b" " * (-len(raw) % 8)
        first = 8 + len(raw)
        self._arrays = arrays
        self._places = {name: first + at for name, at in zip(order, begins, strict=True)}
        self._ends = {name: first + at for name, at in zip(order, ends, strict=True)}
        self._file = path.open("wb")
        self._file.write(len(raw).to_bytes(8, "little") + raw)
        self._file.truncate(first + ends[-1])

    def write(self, name: str, values: NDArray[np.generic]) -> None:
        """Append samples to an array.

        Raises:
            StorageFull: the disk is full.
            ValueError: the samples have another shape, or are too many.
        """
        shape = self._arrays[name]
        if values.shape[1:] != shape.sizes[1:]:
            raise ValueError(f"{name}: {values.shape} are no samples of {shape.sizes}")
        raw = np.ascontiguousarray(values, shape.dtype)
        if self._places[name] + raw.nbytes > self._ends[name]:
            raise ValueError(f"{name}: more than {shape.sizes[0]} samples")
        with disk_watched():
            self._file.seek(self._places[name])
            self._file.write(raw.data if raw.nbytes else b"")
        self._places[name] += raw.nbytes

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with disk_watched():
            self._file.close()
        short = [name for name in self._places if self._places[name] != self._ends[name]]
        if kind is None and short:
            raise ValueError(f"too few samples of {', '.join(short)}")

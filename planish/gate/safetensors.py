"""Header of a safetensors file: 8 bytes of length, JSON, then the tensors without gaps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from planish.contract.errors import InvalidInput
from planish.gate.strict_json import load_json

MAX_HEADER = 8 << 20
MAX_TENSORS = 100_000
MAX_RANK = 16
MAX_NAME = 512
MAX_DIMENSION = 1 << 40

ITEM_SIZE = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: `dtype` as the file spells it (``F32``), `offset` from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def looks_like_safetensors(head: bytes, size: int) -> bool:
    """Tell from the first 9 bytes of a file of `size` bytes."""
    return len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size


def read_tensors(path: Path, refuse: type[InvalidInput]) -> tuple[TensorEntry, ...]:
    """Return the tensors of a file, in the order of their bytes.

    Raises:
        InvalidInput: as `refuse`: the header is too large, damaged, or does not cover the file.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise refuse("the safetensors file is cut short")
        if length > MAX_HEADER:
            raise refuse(f"the safetensors header has {length} bytes; at most {MAX_HEADER}")
        header = _json(file.read(length), refuse)
    _check_notes(header.pop("__metadata__", {}), refuse)
    if len(header) > MAX_TENSORS:
        raise refuse(f"the file has {len(header)} tensors; at most {MAX_TENSORS} are taken")
    entries = [_entry(name, value, 8 + length, refuse) for name, value in header.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.size))
    at = 8 + length
    for entry in entries:
        if entry.offset != at:
            raise refuse(f"tensor {entry.name!r} overlaps another one or leaves a gap")
        at += entry.size
    if at != size:
        raise refuse("the safetensors file is cut short or has bytes that belong to no tensor")
    return tuple(entries)


def read_notes(path: Path) -> dict[str, str]:
    """Return the texts in the header's ``__metadata__`` of a file that `read_tensors` took."""
    with path.open("rb") as file:
        header = load_json(file.read(int.from_bytes(file.read(8), "little")))
    notes = header.get("__metadata__") if isinstance(header, dict) else None
    return dict(notes) if isinstance(notes, dict) else {}


def _json(raw: bytes, refuse: type[InvalidInput]) -> dict[str, object]:
    try:
        header = load_json(raw)
    except ValueError as error:
        raise refuse(f"the safetensors header is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(header, dict):
        raise refuse("the safetensors header is not a JSON object")
    return header


def _check_notes(notes: object, refuse: type[InvalidInput]) -> None:
    """Refuse metadata that is anything but texts by name; readers differ on the rest."""
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        raise refuse("the safetensors header's __metadata__ holds other things than texts")


def _entry(name: str, value: object, base: int, refuse: type[InvalidInput]) -> TensorEntry:
    wrong = refuse(f"the safetensors header is not valid at {name[:100]!r}")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise wrong
    dtype, shape, span = value["dtype"], value["shape"], value["data_offsets"]
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise wrong
    if not isinstance(dtype, str) or dtype not in ITEM_SIZE:
        raise refuse(f"tensor {name!r} has type {str(dtype)[:50]}; known: {', '.join(ITEM_SIZE)}")
    if not _sizes(shape, MAX_RANK) or not _sizes(span, 2) or len(span) != 2:
        raise wrong
    size = math.prod(shape) * ITEM_SIZE[dtype]
    if span[1] - span[0] != size:
        raise refuse(f"tensor {name!r} has {span[1] - span[0]} bytes; its shape needs {size}")
    return TensorEntry(name, dtype, tuple(shape), base + span[0], size)


def _sizes(value: object, most: int) -> bool:
    """Tell whether a value is a short list of plain, bounded, non-negative integers."""
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(item) is int and 0 <= item < MAX_DIMENSION for item in value)
    )

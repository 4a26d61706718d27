"""What a parquet file says about itself, read without pyarrow: its footer and its pages' headers.

Layout of the data: as Hugging Face's datasets writes it. Format: parquet.thrift of parquet-format
2.12. No value is read and nothing is decompressed; what every part declares must fit the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from planish.contract.errors import InvalidData
from planish.gate.parquet.chunks import MAX_GROUPS, check_groups
from planish.gate.parquet.features import Feature, read_features
from planish.gate.parquet.pages import PageCount, check_pages
from planish.gate.parquet.schema import Column, read_schema
from planish.gate.thrift import Struct, read_struct

__all__ = ["Column", "Feature", "ParquetHeader", "looks_like_parquet", "read_parquet"]

MAGIC = b"PAR1"
MAX_FOOTER = 16 << 20
MAX_KEYS = 64
MAX_TEXT = 1 << 20
_ENCRYPTED = b"PARE"
_END = 8


@dataclass(frozen=True)
class ParquetHeader:
    """What a parquet file says about itself.

    Attributes:
        rows: of the whole file.
        columns: as they are written, without their values.
        group_rows: rows of each row group, in file order.
        features: what Hugging Face's datasets noted about the columns; empty where nothing.
    """

    rows: int
    columns: tuple[Column, ...]
    group_rows: tuple[int, ...]
    features: Mapping[str, Feature]


def looks_like_parquet(head: bytes) -> bool:
    """Tell from a file's first bytes."""
    return head.startswith((MAGIC, _ENCRYPTED))


def read_parquet(path: Path) -> ParquetHeader:
    """Return what a parquet file says about itself.

    Raises:
        InvalidData: damaged, cut short, encrypted, of shapes or sizes that are not taken.
    """
    with path.open("rb") as file:
        raw, end = _footer(file)
        footer, used = read_struct(raw, "the parquet footer", InvalidData)
        if used != len(raw):
            footer.wrong("it has bytes that belong to no field")
        if footer.has(8) or footer.has(9):
            raise InvalidData("the parquet file is encrypted; send it plain")
        columns, leaves = read_schema(footer)
        chunks = check_groups(footer, leaves, end)
        pages = PageCount()
        for chunk in chunks:
            check_pages(file, chunk, pages)
    rows = tuple(
        group.size(3, "num_rows") for group in footer.structs(4, "a row group", MAX_GROUPS)
    )
    if sum(rows) != footer.size(3, "num_rows"):
        footer.wrong(f"it says {footer.size(3, 'num_rows')} rows, its row groups have {sum(rows)}")
    return ParquetHeader(sum(rows), columns, rows, read_features(_notes(footer)))


def _footer(file: BinaryIO) -> tuple[bytes, int]:
    """Return the footer's bytes and where they begin."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(len(MAGIC))
    file.seek(max(0, size - _END))
    tail = file.read(_END)
    if _ENCRYPTED in (head, tail[4:]):
        raise InvalidData("the parquet file is encrypted; send it plain")
    length = int.from_bytes(tail[:4], "little")
    end = size - _END - length
    if head != MAGIC or tail[4:] != MAGIC or end < len(MAGIC):
        raise InvalidData("the parquet file is cut short or has foreign bytes at its end")
    if length > MAX_FOOTER:
        raise InvalidData(f"the parquet footer has {length} bytes; at most {MAX_FOOTER} are taken")
    file.seek(end)
    return file.read(length), end


def _notes(footer: Struct) -> Mapping[str, str]:
    """Return the file's key-value metadata; refuses doubled keys."""
    notes: dict[str, str] = {}
    for pair in footer.structs(5, "the parquet metadata", MAX_KEYS):
        key = pair.text(1, "a key", MAX_TEXT)
        if key in notes:
            pair.wrong(f"the key {key[:100]!r} stands twice")
        notes[key] = pair.text(2, f"the value of {key[:100]!r}", MAX_TEXT) if pair.has(2) else ""
    return notes

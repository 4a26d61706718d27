"""The row groups of a parquet file: where each column lies, and how much it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planish.contract.errors import InvalidData
from planish.gate.parquet.schema import Leaf
from planish.gate.thrift import Struct

MAX_GROUPS = 100_000
MAX_GROUP_ROWS = 1 << 26
MAX_GROUP_BYTES = 2 << 30
MAX_RATIO = 1_000
FREE_BYTES = 64 << 20
"""A file may always become this much, however well it is compressed."""

CODECS = {0: "none", 1: "snappy", 2: "gzip", 6: "zstd", 7: "lz4_raw"}
# PLAIN, dictionaries, RLE, bit-packed levels, the three deltas, byte streams.
ENCODINGS = frozenset((0, 2, 3, 4, 5, 6, 7, 8, 9))
_HEAD = 4


@dataclass(frozen=True)
class Chunk:
    """One column of one row group: `size` bytes from `start` that become `unpacked` bytes."""

    name: str
    start: int
    size: int
    unpacked: int
    values: int
    codec: int


def check_groups(footer: Struct, leaves: Sequence[Leaf], end: int) -> tuple[Chunk, ...]:
    """Check all row groups.

    Args:
        footer: of the file.
        leaves: the stored columns.
        end: where the footer begins; all columns lie before it.

    Returns:
        The columns of all row groups, in the order of their bytes.

    Raises:
        InvalidData: outside the file, overlapping, encrypted, in another file, too large.
    """
    chunks: list[Chunk] = []
    for group in footer.structs(4, "a row group", MAX_GROUPS):
        rows = group.size(3, "num_rows")
        if not 0 < rows <= MAX_GROUP_ROWS:
            group.wrong(f"{rows} rows; 1 to {MAX_GROUP_ROWS} are taken")
        columns = group.structs(1, "a column of a row group", len(leaves))
        if len(columns) != len(leaves):
            group.wrong(f"it has {len(columns)} columns, the schema {len(leaves)}")
        found = [
            _chunk(column, leaf, rows, end) for column, leaf in zip(columns, leaves, strict=True)
        ]
        _check_size(group, found, leaves)
        chunks += found
    chunks.sort(key=lambda chunk: chunk.start)
    at = _HEAD
    for chunk in chunks:
        if chunk.start < at:
            raise InvalidData(f"the parquet column {chunk.name[:100]!r} overlaps another one")
        at = chunk.start + chunk.size
    unpacked = sum(chunk.unpacked for chunk in chunks)
    if unpacked > FREE_BYTES + MAX_RATIO * end:
        raise InvalidData(
            f"the parquet file becomes {unpacked} bytes from {end}; at most {MAX_RATIO} times as "
            "many are taken"
        )
    return tuple(chunks)


def _chunk(column: Struct, leaf: Leaf, rows: int, end: int) -> Chunk:
    name = ".".join(leaf.path)
    column = Struct(f"the parquet column {name[:100]!r}", column.refuse, column.values)
    if column.has(1):
        column.wrong("it lies in another file; one file holds all columns")
    if column.has(8) or column.has(9):
        column.wrong("it is encrypted")
    raw = column.struct(3, "meta_data")
    meta = Struct(column.where, raw.refuse, raw.values)
    path = meta.texts(3, "path_in_schema", 64)
    if meta.integer(1, "type") != leaf.physical or tuple(path) != leaf.path:
        meta.wrong("its row group says another name or type than the schema")
    codec = meta.integer(4, "codec")
    if codec not in CODECS:
        meta.wrong(f"codec {codec} is not taken; {', '.join(CODECS.values())} are")
    foreign = set(meta.integers(2, "encodings", 32)) - ENCODINGS
    if foreign:
        meta.wrong(f"encoding {min(foreign)} is not known")
    values = meta.size(5, "num_values")
    if not leaf.repeated and values != rows:
        meta.wrong(f"it has {values} values for {rows} rows")
    start, size = _place(meta, end)
    unpacked = meta.size(6, "total_uncompressed_size")
    if codec == 0 and unpacked != size:
        meta.wrong("it says two sizes though it is not compressed")
    return Chunk(name, start, size, unpacked, values, codec)


def _place(meta: Struct, end: int) -> tuple[int, int]:
    """Return where a column's bytes begin and how many they are."""
    data, size = meta.size(9, "data_page_offset"), meta.size(7, "total_compressed_size")
    start = data
    if meta.has(11) and meta.integer(11, "dictionary_page_offset"):
        start = meta.size(11, "dictionary_page_offset")
    if not _HEAD <= start <= data <= start + size <= end:
        meta.wrong("it says that it lies outside the file")
    return start, size


def _check_size(group: Struct, chunks: Sequence[Chunk], leaves: Sequence[Leaf]) -> None:
    """Refuse a row group that becomes more than a reader's memory should need."""
    size = sum(
        max(chunk.unpacked, chunk.values * (leaf.width or 4))
        for chunk, leaf in zip(chunks, leaves, strict=True)
    )
    if size > MAX_GROUP_BYTES:
        group.wrong(
            f"it becomes {size} bytes; at most {MAX_GROUP_BYTES} are taken: write smaller "
            "row groups"
        )

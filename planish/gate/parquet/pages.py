"""The headers of a parquet file's pages: what they declare must add up to what the footer says.

A reader allocates what a page declares before it decompresses it, so these sizes are the ones that
count.
"""

from __future__ import annotations

from typing import BinaryIO

from planish.contract.errors import InvalidData
from planish.gate.parquet.chunks import ENCODINGS, Chunk
from planish.gate.thrift import Struct, read_struct

MAX_PAGES = 200_000
MAX_HEADER = 1 << 20
MAX_PAGE = 1 << 30

_WINDOW = 512
_DATA, _INDEX, _DICTIONARY, _DATA_V2 = range(4)
_FIELD = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}


class PageCount:
    """How many more pages a file may have."""

    def __init__(self) -> None:
        self.left = MAX_PAGES


def check_pages(file: BinaryIO, chunk: Chunk, count: PageCount) -> None:
    """Walk the pages of one column of one row group.

    Raises:
        InvalidData: sizes or numbers of values that do not add up, unknown pages or encodings.
    """
    at, end, unpacked, values = chunk.start, chunk.start + chunk.size, 0, 0
    while at < end:
        count.left -= 1
        if count.left < 0:
            raise InvalidData(f"the parquet file has more than {MAX_PAGES} pages")
        page, used = _header(file, at, end, chunk.name)
        packed, size = page.size(3, "compressed_page_size"), page.size(2, "uncompressed_page_size")
        if size > MAX_PAGE or packed > end - at - used:
            page.wrong(f"it says {packed} bytes that become {size}; its column has fewer")
        if chunk.codec == 0 and packed != size:
            page.wrong("it says two sizes though it is not compressed")
        at += used + packed
        unpacked += used + size
        values += _values(page)
    if unpacked != chunk.unpacked:
        raise _differ(chunk, f"{unpacked} bytes", str(chunk.unpacked))
    if values != chunk.values:
        raise _differ(chunk, f"{values} values", str(chunk.values))


def _values(page: Struct) -> int:
    """Check what a page's kind says of itself; return how many values of the column it has."""
    kind = page.integer(1, "type")
    if kind not in _FIELD:
        page.wrong(f"a page of type {kind}, which is not taken")
    content = page.struct(_FIELD[kind], f"{page.where}, page")
    encoding = content.integer(_ENCODING[kind], "encoding")
    if encoding not in ENCODINGS:
        content.wrong(f"encoding {encoding} is not known")
    values = content.size(1, "num_values")
    if kind == _DATA_V2:
        levels = content.size(5, "definition_levels_byte_length") + content.size(
            6, "repetition_levels_byte_length"
        )
        if levels > min(
            page.size(2, "uncompressed_page_size"), page.size(3, "compressed_page_size")
        ):
            content.wrong("its levels are longer than the page")
    return 0 if kind == _DICTIONARY else values


def _header(file: BinaryIO, at: int, end: int, name: str) -> tuple[Struct, int]:
    """Return a page's header and its length; most fit the first small read."""
    window = _WINDOW
    while True:
        file.seek(at)
        raw = file.read(min(window, end - at, MAX_HEADER))
        try:
            return read_struct(raw, f"a page of the parquet column {name[:100]!r}", InvalidData)
        except InvalidData:
            if len(raw) < window:
                raise
            window *= 16


def _differ(chunk: Chunk, pages: str, footer: str) -> InvalidData:
    return InvalidData(
        f"the pages of the parquet column {chunk.name[:100]!r} have {pages}, the footer says "
        f"{footer}"
    )

"""Strict reader of zip directories: what is not exactly as torch and numpy write it is refused.

Only the directory and the local headers are read. Layout: APPNOTE.TXT 6.3.10, sections 4.3-4.5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from planish.contract.errors import InvalidInput

MAX_ENTRIES = 20_000
MAX_DIRECTORY = 8 << 20
MAX_NAME = 512
MAX_RATIO = 200
FREE_BYTES = 256 << 20
"""An archive may always become this much, however well it is compressed."""

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_SHORT, _FULL = 0xFFFF, 0xFFFFFFFF
_CHUNK = 1 << 20
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _DESCRIPTOR = 0x1, 0x8


@dataclass(frozen=True)
class Entry:
    """One member: `offset` is where its bytes begin, `packed` how many lie in the file."""

    name: str
    size: int
    packed: int
    crc: int
    offset: int
    deflated: bool


@dataclass(frozen=True)
class Archive:
    """The members of a zip file, in file order."""

    path: Path
    entries: Mapping[str, Entry]
    refuse: type[InvalidInput]

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a member of at most `limit` bytes, its checksum verified."""
        entry = self.entries[name]
        if entry.size > limit:
            raise self.refuse(f"{name} has {entry.size} bytes; at most {limit} are taken")
        content = bytearray(entry.size)
        self.read_into(entry, memoryview(content))
        return bytes(content)

    def read_into(self, entry: Entry, buffer: memoryview) -> None:
        """Fill a buffer of a member's size with its bytes, its checksum verified."""
        at, crc = 0, 0
        for piece in self.chunks(entry):
            buffer[at : at + len(piece)] = piece
            at, crc = at + len(piece), zlib.crc32(piece, crc)
        self._compare(entry, at, crc)

    def copy_to(self, entry: Entry, file: IO[bytes]) -> None:
        """Write a member to a file, a megabyte at a time, its checksum verified."""
        at, crc = 0, 0
        for piece in self.chunks(entry):
            file.write(piece)
            at, crc = at + len(piece), zlib.crc32(piece, crc)
        self._compare(entry, at, crc)

    def verify(self, entry: Entry) -> None:
        """Compare a member with its checksum, a megabyte at a time."""
        at, crc = 0, 0
        for piece in self.chunks(entry):
            at, crc = at + len(piece), zlib.crc32(piece, crc)
        self._compare(entry, at, crc)

    def _compare(self, entry: Entry, size: int, crc: int) -> None:
        if size != entry.size or crc != entry.crc:
            raise self.refuse(f"{entry.name!r} is damaged: its checksum does not match")

    def chunks(self, entry: Entry, size: int = _CHUNK) -> Iterator[bytes]:
        """Yield the content of a member in pieces, never more than its declared size."""
        with self.path.open("rb") as file:
            file.seek(entry.offset)
            packed = _pieces(file, entry.packed, size)
            yield from self._inflate(packed, entry, size) if entry.deflated else packed

    def _inflate(self, packed: Iterator[bytes], entry: Entry, size: int) -> Iterator[bytes]:
        inflate, left = zlib.decompressobj(-15), entry.size
        for raw in packed:
            while raw and left:
                try:
                    content = inflate.decompress(raw, min(size, left))
                except zlib.error:
                    raise self.refuse(f"{entry.name} is damaged: cannot decompress it") from None
                raw, left = inflate.unconsumed_tail, left - len(content)
                yield content


def _pieces(file: BinaryIO, left: int, size: int) -> Iterator[bytes]:
    while left and (piece := file.read(min(size, left))):
        left -= len(piece)
        yield piece


def read_archive(path: Path, refuse: type[InvalidInput], allow_deflate: bool = False) -> Archive:
    """Return the directory of a zip file.

    Args:
        path: the file.
        refuse: the error for everything that is wrong with it.
        allow_deflate: whether members may be compressed; they must be plain otherwise.

    Raises:
        InvalidInput: as `refuse`: cut short, encrypted, overlapping, doubled or misnamed members.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start, length, count = _directory(file, size, refuse)
        file.seek(start)
        raw = file.read(length)
        entries: dict[str, Entry] = {}
        end = 0
        for central in sorted(_central(raw, count, refuse), key=lambda c: c.header):
            if central.header < end or (not entries and central.header):
                raise refuse("the archive has members that overlap or bytes before its members")
            if central.name in entries:
                raise refuse(f"the archive names {central.name!r} twice")
            entry = _entry(file, central, refuse, allow_deflate)
            end = entry.offset + entry.packed
            if end > start:
                raise refuse(f"the archive is cut short within {central.name!r}")
            entries[entry.name] = entry
    _check_ratio(entries.values(), refuse)
    return Archive(path, entries, refuse)


def _check_ratio(entries: Iterable[Entry], refuse: type[InvalidInput]) -> None:
    """Refuse a bomb: deflate makes up to a thousand bytes of one."""
    size = packed = 0
    for entry in entries:
        size, packed = size + entry.size, packed + entry.packed
    if size > FREE_BYTES + MAX_RATIO * packed:
        raise refuse(
            f"the archive becomes {size} bytes from {packed}; at most {MAX_RATIO} times as many "
            "are taken: save the arrays uncompressed (numpy.savez)"
        )


@dataclass(frozen=True)
class _Central:
    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    header: int


def _directory(file: BinaryIO, size: int, refuse: type[InvalidInput]) -> tuple[int, int, int]:
    """Return offset, length and number of entries of the central directory."""
    cut = refuse("the archive is cut short or has foreign bytes at its end; send the whole file")
    if size < _END.size:
        raise cut
    file.seek(size - _END.size)
    mark, disk, disk2, here, count, length, start, comment = _END.unpack(file.read(_END.size))
    if mark != b"PK\x05\x06" or disk or disk2 or comment or here != count:
        raise cut
    end = size - _END.size
    located = _locator(file, end)
    if located is not None:
        end = located
        file.seek(end)
        record = file.read(_END64.size)
        if len(record) < _END64.size or not record.startswith(b"PK\x06\x06"):
            raise cut
        *_, wide_count, wide_length, wide_start = _END64.unpack(record)
        if not (
            count in (_SHORT, wide_count)
            and length in (_FULL, wide_length)
            and start in (_FULL, wide_start)
        ):
            raise refuse("the archive has two end records that say different things")
        count, length, start = wide_count, wide_length, wide_start
    if start + length != end:
        raise cut
    if count > MAX_ENTRIES or length > MAX_DIRECTORY:
        raise refuse(f"the archive has {count} members; at most {MAX_ENTRIES} are taken")
    return start, length, count


def _locator(file: BinaryIO, end: int) -> int | None:
    """Return the offset of the 64-bit end record, None when there is none."""
    if end < _LOCATOR.size:
        return None
    file.seek(end - _LOCATOR.size)
    mark, _, offset, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
    fits = mark == b"PK\x06\x07" and offset + _END64.size == end - _LOCATOR.size
    return int(offset) if fits else None


def _central(raw: bytes, count: int, refuse: type[InvalidInput]) -> Iterator[_Central]:
    at = 0
    for _ in range(count):
        fields = raw[at : at + _CENTRAL.size]
        if len(fields) < _CENTRAL.size or not fields.startswith(b"PK\x01\x02"):
            raise refuse("the archive's directory is damaged")
        (_, _, _, flags, method, _, _, crc, packed, size, n, extra, comment, disk, _, _, header) = (
            _CENTRAL.unpack(fields)
        )
        at += _CENTRAL.size
        raw_name = raw[at : at + n]
        packed, size, header = _wide(raw[at + n : at + n + extra], packed, size, header, refuse)
        at += n + extra + comment
        if disk or at > len(raw):
            raise refuse("the archive's directory is damaged")
        name = _name(raw_name, refuse)
        yield _Central(name, raw_name, flags, method, crc, packed, size, header)
    if at != len(raw):
        raise refuse("the archive's directory holds more than its members")


def _wide(
    extra: bytes, packed: int, size: int, header: int, refuse: type[InvalidInput]
) -> tuple[int, int, int]:
    """Replace 32-bit fields that overflowed by those of the zip64 extra field (4.5.3)."""
    wanted = [value for value in (size, packed, header) if value == _FULL]
    if not wanted:
        return packed, size, header
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1 and length >= 8 * len(wanted) and at + 4 + length <= len(extra):
            values = iter(struct.unpack_from(f"<{len(wanted)}Q", extra, at + 4))
            size, packed, header = (
                next(values) if value == _FULL else value for value in (size, packed, header)
            )
            return packed, size, header
        at += 4 + length
    raise refuse("the archive's directory is damaged: a 64-bit size is missing")


def _name(raw: bytes, refuse: type[InvalidInput]) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise refuse("the archive has a member whose name is not UTF-8") from None
    parts = name.split("/")
    if not name or len(name) > MAX_NAME or not name.isprintable() or "\\" in name:
        raise refuse("the archive has a member whose name is empty, too long or not printable")
    if name.startswith("/") or ".." in parts or "." in parts:
        raise refuse(f"the archive has a member named {name[:100]!r}, which is a path outside it")
    return name


def _entry(
    file: BinaryIO, central: _Central, refuse: type[InvalidInput], allow_deflate: bool
) -> Entry:
    """Check a member's local header against the directory."""
    file.seek(central.header)
    fields = file.read(_LOCAL.size)
    if len(fields) < _LOCAL.size or not fields.startswith(b"PK\x03\x04"):
        raise refuse(f"the archive is damaged at {central.name!r}")
    _, _, flags, method, _, _, crc, packed, size, n, extra = _LOCAL.unpack(fields)
    plain = packed in (central.packed, _FULL) and size in (central.size, _FULL)
    later = bool(flags & _DESCRIPTOR) and not (crc or packed or size)
    same = file.read(n) == central.raw_name and method == central.method and flags == central.flags
    if not same or not (later or (plain and crc == central.crc)):
        raise refuse(f"the archive says two things about {central.name!r}")
    if central.flags & _ENCRYPTED:
        raise refuse(f"{central.name!r} in the archive is encrypted")
    if method not in ((_STORED, _DEFLATED) if allow_deflate else (_STORED,)):
        raise refuse(
            f"{central.name!r} in the archive is compressed; torch stores members as they are, "
            "send the file that it wrote"
        )
    if method == _STORED and central.packed != central.size:
        raise refuse(f"the archive says two things about {central.name!r}")
    offset = central.header + _LOCAL.size + n + extra
    return Entry(
        central.name, central.size, central.packed, central.crc, offset, method == _DEFLATED
    )

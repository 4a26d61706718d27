"""Zip files with their members and every field of their headers open to change."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random

from tests.hostile.fuzz.plain import mutate_bytes, number, text

LOCAL = ("version", "flags", "method", "time", "date", "crc", "packed", "size")


@dataclass(frozen=True)
class Member:
    """One member; `local` and `central` replace fields of its headers by name."""

    name: bytes
    content: bytes
    deflated: bool = False
    local: dict[str, int] = field(default_factory=dict)
    central: dict[str, int] = field(default_factory=dict)
    local_name: bytes | None = None
    extra: bytes = b""


def write_zip(
    members: list[Member],
    end: dict[str, int] | None = None,
    comment: bytes = b"",
    wide: bool = False,
) -> bytes:
    """Return a zip file; `end` replaces fields of the end record, `wide` adds the 64-bit one."""
    body, directory = bytearray(), bytearray()
    for member in members:
        packed = _deflate(member.content) if member.deflated else member.content
        base = {
            "version": 20, "flags": 0, "method": 8 if member.deflated else 0, "time": 0, "date": 33,
            "crc": zlib.crc32(member.content), "packed": len(packed), "size": len(member.content),
        }  # fmt: skip
        header = len(body)
        local, central = base | member.local, {**base, "header": header} | member.central
        name = member.name if member.local_name is None else member.local_name
        body += _pack("<4s5H3L2H", b"PK\x03\x04", *(local[k] for k in LOCAL), len(name), 0)
        body += name + packed
        directory += _pack(
            "<4s6H3L5H2L", b"PK\x01\x02", 20, *(central[k] for k in LOCAL), len(member.name),
            len(member.extra), 0, central.get("disk", 0), 0, 0, central["header"],
        )  # fmt: skip
        directory += member.name + member.extra
    fields = {"count": len(members), "length": len(directory), "start": len(body)} | (end or {})
    tail = b""
    if wide:
        record = _pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, len(members), len(members),
                       len(directory), len(body))  # fmt: skip
        tail = record + _pack("<4sLQL", b"PK\x06\x07", 0, len(body) + len(directory), 1)
    count, length, start = fields["count"], fields["length"], fields["start"]
    tail += _pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, length, start, len(comment))
    return bytes(body + directory) + tail + comment


def mutate_zip(rng: Random, members: list[Member]) -> bytes:
    """Return an archive with a member, a header or its end changed."""
    members, end, comment, wide = list(members), {}, b"", False
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(members)) if members else 0
        kind = rng.randrange(9)
        if kind == 0 or not members:
            members.append(Member(text(rng).encode("utf-8", "surrogatepass"), rng.randbytes(9)))
        elif kind == 1:
            members[at] = replace(members[at], content=mutate_bytes(rng, members[at].content))
        elif kind == 2:
            members[at] = replace(members[at], name=_name(rng, members[at].name))
        elif kind == 3:
            members[at] = replace(members[at], local={rng.choice(LOCAL): number(rng)})
        elif kind == 4:
            members[at] = replace(
                members[at], central={rng.choice((*LOCAL, "header", "disk")): number(rng)}
            )
        elif kind == 5:
            members.insert(rng.randrange(len(members)), members[at])
        elif kind == 6:
            end = {rng.choice(("count", "length", "start")): number(rng)}
        elif kind == 7:
            members[at] = replace(members[at], deflated=not members[at].deflated)
        else:
            wide, comment = rng.random() < 0.7, rng.choice((b"", b"PK\x05\x06" + bytes(18)))
    return write_zip(members, end, comment, wide)


def _name(rng: Random, name: bytes) -> bytes:
    added = text(rng).encode("utf-8", "surrogatepass")
    return rng.choice((added, name + added, added + b"/" + name, name[:-1], b"\xff" + name))


def _deflate(content: bytes) -> bytes:
    squeeze = zlib.compressobj(6, zlib.DEFLATED, -15)
    return squeeze.compress(content) + squeeze.flush()


def _pack(layout: str, mark: bytes, *values: int) -> bytes:
    """Pack numbers as they fit: what is too large or negative wraps around."""
    return struct.pack(layout, mark, *map(int.__and__, values, _masks(layout)))


@cache
def _masks(layout: str) -> list[int]:
    found, count = [], ""
    for character in layout.removeprefix("<4s"):
        if character.isdigit():
            count += character
        else:
            mask = (1 << 8 * struct.calcsize("<" + character)) - 1
            found += [mask] * int(count or 1)
            count = ""
    return found

"""Protocol buffers from strangers, walked field by field and never decoded as a whole.

Wire format: protobuf.dev/programming-guides/encoding. Stricter than the parsers that come later, so
that none of them can see another message than the gate did: unknown fields, singular fields that
come twice, other wire types than the schema's and varints with spare bytes are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from planish.contract.errors import InvalidInput

MAX_FIELDS = 600_000

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}
_CHUNK = 1 << 20
_CONTINUED = bytes(range(128, 256))


class Kind(Enum):
    """What a field holds."""

    INTEGER = "one integer"
    FLOAT = "one float"
    BYTES = "bytes, text or a message"
    INTEGERS = "integers"
    FLOATS = "floats"
    DOUBLES = "doubles"
    MANY = "many of bytes, texts or messages"


_WIRES = {
    Kind.INTEGER: (_VARINT,),
    Kind.FLOAT: (_FIXED32,),
    Kind.BYTES: (_LENGTH,),
    Kind.INTEGERS: (_VARINT, _LENGTH),
    Kind.FLOATS: (_FIXED32, _LENGTH),
    Kind.DOUBLES: (_FIXED64, _LENGTH),
    Kind.MANY: (_LENGTH,),
}
_ONCE = (Kind.INTEGER, Kind.FLOAT, Kind.BYTES)

Schema = Mapping[int, tuple[str, Kind]]


class Budget:
    """How many more fields one file may have; the walk's time is bounded by it."""

    def __init__(self, refuse: type[InvalidInput], fields: int = MAX_FIELDS) -> None:
        self.refuse = refuse
        self._left = fields
        self._most = fields

    def spend(self, where: str) -> None:
        """Count one field; raises the file's error when there are too many."""
        self._left -= 1
        if self._left < 0:
            raise self.refuse(f"{where}: the file has more than {self._most} fields")


@dataclass(frozen=True)
class Message:
    """One message: its fields by name, their bytes still where they lie in the file."""

    where: str
    refuse: type[InvalidInput]
    scalars: Mapping[str, int]
    slices: Mapping[str, list[memoryview]]

    def integer(self, name: str, default: int = 0) -> int:
        """Return a signed integer of 64 bits."""
        value = self.scalars.get(name, default)
        return value - (1 << 64) if value >> 63 == 1 else value

    def has(self, name: str) -> bool:
        """Tell whether a field is there at all."""
        return name in self.scalars or name in self.slices

    def bytes(self, name: str) -> memoryview | None:
        """Return the bytes of a singular field; None where it is absent."""
        found = self.slices.get(name)
        return found[0] if found else None

    def all(self, name: str) -> Sequence[memoryview]:
        """Return the bytes of a repeated field, in the file's order; numbers as if packed."""
        return self.slices.get(name, ())

    def text(self, name: str, limit: int) -> str:
        """Return a string of at most `limit` bytes; empty where it is absent."""
        raw = self.bytes(name)
        return "" if raw is None else self.decode(raw, name, limit)

    def decode(self, raw: memoryview, name: str, limit: int) -> str:
        """Return bytes of a field as text of at most `limit` bytes."""
        if len(raw) > limit:
            self.wrong(f"{name} has {len(raw)} bytes; at most {limit} are taken")
        try:
            return bytes(raw).decode("utf-8")
        except UnicodeDecodeError:
            self.wrong(f"{name} is not UTF-8")

    def integers(self, name: str, limit: int) -> tuple[int, ...]:
        """Return a repeated integer field, packed or not, of at most `limit` numbers."""
        values: list[int] = []
        for piece in self.all(name):
            if _count(piece) + len(values) > limit:
                self.wrong(f"{name} has more than {limit} numbers")
            at = 0
            while at < len(piece):
                value, at = _varint(piece, at, len(piece), self.where, self.refuse)
                values.append(value - (1 << 64) if value >> 63 else value)
        return tuple(values)

    def count_integers(self, name: str) -> int:
        """Return how many integers a repeated field holds, without decoding them."""
        return sum(map(_count, self.all(name)))

    def count_wide(self, name: str, width: int) -> int:
        """Return how many numbers of `width` bytes a repeated field holds."""
        size = sum(map(len, self.all(name)))
        if size % width:
            self.wrong(f"{name} is cut short")
        return size // width

    def wrong(self, what: str) -> NoReturn:
        """Raise the file's error for something in this message."""
        raise self.refuse(f"{self.where}: {what}")


def read_message(raw: memoryview, schema: Schema, where: str, budget: Budget) -> Message:
    """Return the fields of a message.

    Args:
        raw: exactly its bytes.
        schema: the fields that it may have, by number.
        where: what it is, for error texts.
        budget: what the file may still spend.

    Raises:
        InvalidInput: as `budget.refuse`: cut short, unknown or doubled fields.
    """
    scalars: dict[str, int] = {}
    slices: dict[str, list[memoryview]] = {}
    for number, wire, piece in _fields(raw, where, budget):
        known = schema.get(number)
        if known is None:
            raise budget.refuse(f"{where} has a field of unknown number {number}")
        name, kind = known
        if wire not in _WIRES[kind]:
            raise budget.refuse(f"{where}: {name} is stored as another type than it has")
        if kind in _ONCE and (name in scalars or name in slices):
            raise budget.refuse(f"{where}: {name} stands twice")
        if kind is Kind.INTEGER:
            scalars[name], _ = _varint(piece, 0, len(piece), where, budget.refuse)
        else:
            slices.setdefault(name, []).append(piece)
    return Message(where, budget.refuse, scalars, slices)


def _fields(raw: memoryview, where: str, budget: Budget) -> Iterator[tuple[int, int, memoryview]]:
    """Yield number, wire type and the bytes of the value of each field."""
    at, end, refuse = 0, len(raw), budget.refuse
    while at < end:
        budget.spend(where)
        tag, start = _varint(raw, at, end, where, refuse)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise refuse(f"{where} is damaged: a field has number {number}")
        if wire == _VARINT:
            _, at = _varint(raw, start, end, where, refuse)
        elif wire == _LENGTH:
            size, start = _varint(raw, start, end, where, refuse)
            at = start + size
        elif wire in _WIDTH:
            at = start + _WIDTH[wire]
        else:
            raise refuse(f"{where} is damaged: a field has wire type {wire}")
        if at > end:
            raise refuse(f"{where} is cut short")
        yield number, wire, raw[start:at]


def _varint(
    raw: memoryview, at: int, end: int, where: str, refuse: type[InvalidInput]
) -> tuple[int, int]:
    """Return an unsigned integer of 64 bits and where the next byte is."""
    value = shift = 0
    while at < end and shift < 70:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64 or (not byte and shift):
                break
            return value, at
        shift += 7
    raise refuse(f"{where} is damaged: a number is cut short or has spare bytes")


def _count(packed: memoryview) -> int:
    """Return how many varints lie in packed bytes: each has one byte below 128."""
    pieces = range(0, len(packed), _CHUNK)
    return sum(len(bytes(packed[at : at + _CHUNK]).translate(None, _CONTINUED)) for at in pieces)

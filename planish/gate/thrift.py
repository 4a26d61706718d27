"""Thrift's compact protocol from strangers, as parquet files use it: values by field number.

Format: thrift-compact-protocol.md of Apache Thrift. Fields of unknown number are walked and
ignored, as every reader does; a field that comes twice is refused, because readers differ on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from planish.contract.errors import InvalidInput

MAX_VALUES = 1_000_000
MAX_DEPTH = 16

T = TypeVar("T")

_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(
    13
)
_INTEGERS = (_I16, _I32, _I64)


@dataclass(frozen=True)
class Struct:
    """One struct: its values by field number. A value of another type than asked for is refused."""

    where: str
    refuse: type[InvalidInput]
    values: Mapping[int, object]

    def has(self, field: int) -> bool:
        """Tell whether a field is there."""
        return field in self.values

    def integer(self, field: int, name: str, default: int | None = None) -> int:
        """Return an integer; refuses one that is absent where there is no default."""
        value = self.values.get(field, default)
        if type(value) is not int:
            self.wrong(f"{name} is missing or no integer")
        return value

    def size(self, field: int, name: str, default: int | None = None) -> int:
        """Return an integer that is not negative."""
        value = self.integer(field, name, default)
        if value < 0:
            self.wrong(f"{name} is {value}")
        return value

    def flag(self, field: int, name: str, default: bool) -> bool:
        """Return a boolean."""
        value = self.values.get(field, default)
        if type(value) is not bool:
            self.wrong(f"{name} is not true or false")
        return value

    def text(self, field: int, name: str, limit: int) -> str:
        """Return a string of at most `limit` bytes; refuses one that is absent."""
        value = self.values.get(field)
        if not isinstance(value, bytes) or len(value) > limit:
            self.wrong(f"{name} is missing, no text or longer than {limit} bytes")
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            self.wrong(f"{name} is not UTF-8")

    def struct(self, field: int, name: str) -> Struct:
        """Return a struct; an empty one where it is absent."""
        value = self.values.get(field, {})
        if not isinstance(value, dict):
            self.wrong(f"{name} is no struct")
        return Struct(name, self.refuse, value)

    def structs(self, field: int, name: str, limit: int) -> list[Struct]:
        """Return a list of at most `limit` structs; empty where it is absent."""
        return [Struct(name, self.refuse, v) for v in self._list(field, name, limit, dict)]

    def integers(self, field: int, name: str, limit: int) -> list[int]:
        """Return a list of at most `limit` integers."""
        return self._list(field, name, limit, int)

    def texts(self, field: int, name: str, limit: int) -> list[str]:
        """Return a list of at most `limit` strings."""
        try:
            return [raw.decode("utf-8") for raw in self._list(field, name, limit, bytes)]
        except UnicodeDecodeError:
            self.wrong(f"{name} is not UTF-8")

    def _list(self, field: int, name: str, limit: int, kind: type[T]) -> list[T]:
        value = self.values.get(field, [])
        if not isinstance(value, list) or len(value) > limit:
            self.wrong(f"{name} is no list, or one of more than {limit}")
        if not all(type(item) is kind for item in value):
            self.wrong(f"{name} holds values of another type")
        return value

    def wrong(self, what: str) -> NoReturn:
        """Raise the file's error for something in this struct."""
        raise self.refuse(f"{self.where}: {what}")


def read_struct(
    raw: bytes, where: str, refuse: type[InvalidInput], values: int = MAX_VALUES
) -> tuple[Struct, int]:
    """Return the struct that bytes begin with, and how many of them it takes.

    Args:
        raw: the bytes; there may be more of them.
        where: what it is, for error texts.
        refuse: the error for everything that is wrong with it.
        values: how many values it may hold at most.

    Raises:
        InvalidInput: as `refuse`: cut short, nested too deep, a field twice.
    """
    walk = _Walk(raw, where, refuse, values)
    content = walk.struct(0)
    return Struct(where, refuse, content), walk.at


class _Walk:
    """Where the walk is, and what it may still spend."""

    def __init__(self, raw: bytes, where: str, refuse: type[InvalidInput], values: int) -> None:
        self._raw = raw
        self._where = where
        self._refuse = refuse
        self._left = values
        self.at = 0

    def struct(self, depth: int) -> dict[int, object]:
        if depth > MAX_DEPTH:
            raise self._wrong(f"nested deeper than {MAX_DEPTH} levels")
        fields: dict[int, object] = {}
        number = 0
        while (head := self._byte()) != _STOP:
            number = number + (head >> 4) if head >> 4 else self._integer()
            if number in fields or not 0 < number < 1 << 15:
                raise self._wrong(f"field {number} stands twice or cannot be")
            kind = head & 15
            self._spend()
            fields[number] = kind == _TRUE if kind <= _FALSE else self._value(kind, depth)
        return fields

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise self._wrong("it holds more values than are taken")

    def _value(self, kind: int, depth: int) -> object:
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            return self._list(depth + 1)
        if kind in (_TRUE, _FALSE):
            return self._byte() == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind == _DOUBLE:
            return self._take(8)
        raise self._wrong(f"a value of type {kind}")

    def _list(self, depth: int) -> list[object]:
        if depth > MAX_DEPTH:
            raise self._wrong(f"nested deeper than {MAX_DEPTH} levels")
        head = self._byte()
        count, kind = head >> 4, head & 15
        if count == 15:
            count = self._varint()
        if count > min(self._left, len(self._raw) - self.at):
            raise self._wrong(f"a list of {count} values does not fit")
        self._left -= count
        return [self._value(kind, depth) for _ in range(count)]

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    break
                return value
            shift += 7
        raise self._wrong("a number of more than 64 bits")

    def _byte(self) -> int:
        if self.at >= len(self._raw):
            raise self._wrong("cut short")
        self.at += 1
        return self._raw[self.at - 1]

    def _take(self, size: int) -> bytes:
        if size > len(self._raw) - self.at:
            raise self._wrong("cut short")
        self.at += size
        return self._raw[self.at - size : self.at]

    def _wrong(self, what: str) -> InvalidInput:
        return self._refuse(f"{self._where} is damaged at byte {self.at}: {what}")

"""JSON from strangers, walked with every step checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from planish.contract.errors import InvalidModel
from planish.gate.strict_json import load_json


@dataclass(frozen=True)
class Value:
    """One JSON value and where it stands; a step that does not fit raises `InvalidModel`."""

    raw: object
    where: str

    def __getitem__(self, key: str) -> Value:
        found = self.get(key)
        if found is None:
            raise self.wrong(f"has no {key!r}")
        return found

    def get(self, key: str) -> Value | None:
        """Return a member of an object; None where it is absent or null."""
        if not isinstance(self.raw, dict):
            raise self.wrong("is not an object")
        found = self.raw.get(key)
        return None if found is None else Value(found, f"{self.where}.{key[:100]}")

    def members(self) -> Iterator[tuple[str, Value]]:
        """Yield the members of an object."""
        if not isinstance(self.raw, dict):
            raise self.wrong("is not an object")
        for key, value in self.raw.items():
            yield key, Value(value, f"{self.where}.{key[:100]}")

    def items(self) -> list[Value]:
        """Return the items of a list."""
        if not isinstance(self.raw, list):
            raise self.wrong("is not a list")
        return [Value(item, f"{self.where}[{index}]") for index, item in enumerate(self.raw)]

    def union(self) -> tuple[str, Value]:
        """Return the one member of a tagged union, ``{"as_int": 3}``."""
        if not isinstance(self.raw, dict) or len(self.raw) != 1:
            raise self.wrong("is not a value with one tag")
        key, value = next(iter(self.raw.items()))
        return key, Value(value, f"{self.where}.{key[:100]}")

    def text(self) -> str:
        """Return a string."""
        if not isinstance(self.raw, str):
            raise self.wrong("is not a string")
        return self.raw

    def integer(self) -> int:
        """Return an integer of 64 bits."""
        if type(self.raw) is not int or not -(1 << 63) <= self.raw < 1 << 63:
            raise self.wrong("is not an integer of 64 bits")
        return self.raw

    def number(self) -> float:
        """Return a float; infinities and NaN come as strings."""
        if isinstance(self.raw, str) and self.raw in ("Infinity", "-Infinity", "NaN"):
            return float(self.raw)
        if isinstance(self.raw, bool) or not isinstance(self.raw, int | float):
            raise self.wrong("is not a number")
        if abs(self.raw) > 1e308:
            raise self.wrong("is too large")
        return float(self.raw)

    def boolean(self) -> bool:
        """Return true or false."""
        if type(self.raw) is not bool:
            raise self.wrong("is not true or false")
        return self.raw

    def wrong(self, what: str) -> InvalidModel:
        """Return the error that says what is wrong here."""
        return InvalidModel(f"the exported program is damaged: {self.where} {what}")


def parse(raw: bytes, where: str) -> Value:
    """Return a JSON document.

    Raises:
        InvalidModel: not UTF-8 JSON, a key twice, NaN, or nested too deep.
    """
    try:
        value = load_json(raw)
    except ValueError as error:
        raise InvalidModel(f"{where} is not valid JSON: {str(error)[:200]}") from None
    return Value(value, where)

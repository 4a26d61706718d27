"""The columns of a parquet file: scalars, lists of numbers, and images as ``{bytes, path}``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from planish.contract.errors import InvalidData
from planish.gate.thrift import Struct

MAX_COLUMNS = 1_000
MAX_ELEMENTS = 4_000
MAX_NAME = 512
MAX_LISTS = 4

Kind = Literal["image", "number", "text", "bytes", "other"]

_BOOLEAN, _INT32, _INT64, _INT96, _FLOAT, _DOUBLE, _BYTES, _FIXED = range(8)
_WIDTHS = {_BOOLEAN: 1, _INT32: 4, _INT64: 8, _INT96: 12, _FLOAT: 4, _DOUBLE: 8}
_PLAIN = {_BOOLEAN: "bool", _INT32: "int32", _INT64: "int64", _FLOAT: "float32", _DOUBLE: "float64"}
# ConvertedType of the numbers; in place of it newer files have a LogicalType.
_CONVERTED = {
    11: "uint8", 12: "uint16", 13: "uint32", 14: "uint64",
    15: "int8", 16: "int16", 17: "int32", 18: "int64",
}  # fmt: skip
_UTF8, _MAP, _MAP_PAIRS, _LIST = 0, 1, 2, 3
_LOGICAL_STRING, _LOGICAL_LIST, _LOGICAL_INTEGER, _LOGICAL_HALF = 1, 3, 10, 15
_REQUIRED, _OPTIONAL, _REPEATED = range(3)


@dataclass(frozen=True)
class Column:
    """One column as people see it.

    Attributes:
        name: as the user named it.
        kind: ``image`` is a struct of ``bytes`` and ``path``.
        dtype: of numbers, in numpy's words; None for all else.
        lists: how many lists are around each value: 0 for scalars.
        optional: whether a value may be null, at any level.
    """

    name: str
    kind: Kind
    dtype: str | None
    lists: int
    optional: bool


@dataclass(frozen=True)
class Leaf:
    """One stored column: `width` is the bytes of a value, None where each has its own length."""

    path: tuple[str, ...]
    physical: int
    width: int | None
    repeated: bool


@dataclass(frozen=True)
class _Element:
    """One element of the schema with those below it."""

    name: str
    raw: Struct
    children: tuple[_Element, ...]
    repetition: int

    def converted(self) -> int | None:
        return self.raw.integer(6, "converted_type") if self.raw.has(6) else None

    def logical(self) -> Struct:
        return self.raw.struct(10, f"the type of {self.name!r}")


def read_schema(footer: Struct) -> tuple[tuple[Column, ...], tuple[Leaf, ...]]:
    """Return the columns, and what is stored for them in the file's order.

    Raises:
        InvalidData: damaged, or a shape that is not of this layout.
    """
    elements = iter(footer.structs(2, "the parquet schema", MAX_ELEMENTS))
    root = _tree(elements, 0)
    if next(elements, None) is not None:
        footer.wrong("its schema has elements outside its root")
    if not 0 < len(root.children) <= MAX_COLUMNS:
        footer.wrong(f"it has {len(root.children)} columns; 1 to {MAX_COLUMNS} are taken")
    if len({child.name for child in root.children}) != len(root.children):
        footer.wrong("two columns have the same name")
    columns = tuple(_column(child) for child in root.children)
    return columns, tuple(leaf for child in root.children for leaf in _leaves(child, (), False))


def _tree(elements: Iterator[Struct], depth: int) -> _Element:
    raw = next(elements, None)
    if raw is None:
        raise InvalidData("the parquet schema is cut short")
    if depth > 2 * MAX_LISTS + 2:
        raw.wrong("it is nested too deep")
    name = raw.text(4, "a name", MAX_NAME)
    if depth and (not name or not name.isprintable()):
        raw.wrong(f"a column has the name {name[:100]!r}, which is empty or not printable")
    count = raw.size(5, "num_children", 0)
    if count > MAX_ELEMENTS or bool(count) == raw.has(1):
        raw.wrong(f"{name[:100]!r} is both a group and a value, or neither")
    repetition = raw.integer(3, "repetition_type", _REQUIRED)
    if repetition not in (_REQUIRED, _OPTIONAL, _REPEATED):
        raw.wrong(f"{name[:100]!r} has the unknown repetition {repetition}")
    return _Element(name, raw, tuple(_tree(elements, depth + 1) for _ in range(count)), repetition)


def _leaves(element: _Element, above: tuple[str, ...], repeated: bool) -> Iterator[Leaf]:
    path = (*above, element.name)
    repeated = repeated or element.repetition == _REPEATED
    if len({child.name for child in element.children}) != len(element.children):
        element.raw.wrong(f"two fields of {element.name[:100]!r} have the same name")
    for child in element.children:
        yield from _leaves(child, path, repeated)
    if not element.children:
        physical = element.raw.integer(1, "type")
        if physical not in (*_WIDTHS, _BYTES, _FIXED):
            element.raw.wrong(f"{element.name[:100]!r} has the unknown type {physical}")
        length = element.raw.size(2, "type_length", 0)
        if physical == _FIXED and not 0 < length <= 1 << 20:
            element.raw.wrong(f"{element.name[:100]!r} has values of {length} bytes")
        width = length if physical == _FIXED else _WIDTHS.get(physical)
        yield Leaf(path, physical, width, repeated)


def _column(element: _Element) -> Column:
    """Return what a column holds; refuses shapes that Hugging Face's layout does not have."""
    lists, optional, value = 0, element.repetition == _OPTIONAL, element
    if element.repetition == _REPEATED:
        raise _foreign(element, "a repeated field without its list")
    while value.children and _is_list(value):
        middle = value.children[0]
        lists += 1
        value = middle.children[0]
        optional = optional or value.repetition == _OPTIONAL
        if lists > MAX_LISTS or value.repetition == _REPEATED:
            raise _foreign(element, f"lists nested deeper than {MAX_LISTS}")
    if not value.children:
        kind, dtype = _scalar(value)
        return Column(element.name, kind, dtype, lists, optional)
    fields = {child.name: child for child in value.children}
    if lists or set(fields) != {"bytes", "path"} or any(f.children for f in fields.values()):
        raise _foreign(element, "a struct, map or list of structs")
    if any(
        f.repetition == _REPEATED or f.raw.integer(1, "type") != _BYTES for f in fields.values()
    ):
        raise _foreign(element, "a struct of other types than bytes and path")
    return Column(element.name, "image", None, 0, optional)


def _is_list(element: _Element) -> bool:
    """Tell whether a group is a list of three levels: list, repeated group, one element."""
    named = element.converted() == _LIST or element.logical().has(_LOGICAL_LIST)
    if not named or len(element.children) != 1:
        return False
    middle = element.children[0]
    return middle.repetition == _REPEATED and len(middle.children) == 1


def _scalar(element: _Element) -> tuple[Kind, str | None]:
    physical, converted, logical = (
        element.raw.integer(1, "type"), element.converted(), element.logical(),
    )  # fmt: skip
    if physical == _BYTES:
        text = converted == _UTF8 or logical.has(_LOGICAL_STRING)
        return ("text", None) if text else ("bytes", None)
    if physical == _FIXED and logical.has(_LOGICAL_HALF):
        return "number", "float16"
    if logical.has(_LOGICAL_INTEGER):
        integer = logical.struct(_LOGICAL_INTEGER, "an integer type")
        bits, signed = integer.integer(1, "bitWidth"), integer.flag(2, "isSigned", default=True)
        if bits not in (8, 16, 32, 64) or physical not in (_INT32, _INT64):
            integer.wrong(f"integers of {bits} bits")
        return "number", f"{'' if signed else 'u'}int{bits}"
    if converted in _CONVERTED:
        return "number", _CONVERTED[converted]
    if physical in _PLAIN and converted is None and not logical.values:
        return "number", _PLAIN[physical]
    return "other", None


def _foreign(element: _Element, what: str) -> InvalidData:
    return InvalidData(
        f"the parquet column {element.name[:100]!r} is {what}; numbers, texts, lists of numbers "
        "and images ({bytes, path}) are taken: drop the column or write it as one of those"
    )

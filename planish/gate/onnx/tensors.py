"""Tensors of an ONNX file: types, shapes, and where their bytes lie. No value is read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from planish.gate.onnx.schema import ENTRY, TENSOR
from planish.gate.protobuf import Budget, Message, read_message

MAX_RANK = 16
MAX_DIMENSION = 1 << 40
MAX_NAME = 512
MAX_DOC = 1 << 20
MAX_ENTRIES = 64
MAX_ENTRY = 1 << 16

PART_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.\-]{1,128}")

TYPES = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    12: ("uint32", 32),
    13: ("uint64", 64),
    16: ("bfloat16", 16),
    17: ("float8_e4m3fn", 8),
    18: ("float8_e4m3fnuz", 8),
    19: ("float8_e5m2", 8),
    20: ("float8_e5m2fnuz", 8),
    21: ("uint4", 4),
    22: ("int4", 4),
}
"""Name and bits of each type that is taken, by `TensorProto.DataType`."""

_LOOSE = {
    "float_data": (1,),
    "double_data": (11,),
    "int64_data": (7,),
    "uint64_data": (12, 13),
    "int32_data": (2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 21, 22),
}
_WIDTHS = {"float_data": 4, "double_data": 8}
_DECIMAL = re.compile(r"0|[1-9]\d{0,18}", re.ASCII)


@dataclass(frozen=True)
class External:
    """Bytes of a tensor in another part of the upload: `size` from `offset` of `part`."""

    tensor: str
    part: str
    offset: int
    size: int


@dataclass(frozen=True)
class TensorFacts:
    """One tensor: `dtype` in numpy's words; `external` where its bytes are in another part."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    external: External | None


def read_tensor(
    raw: memoryview, where: str, budget: Budget, name: str | None = None
) -> TensorFacts:
    """Check a tensor against its own bytes.

    Args:
        raw: the TensorProto.
        where: what it is, for error texts.
        budget: of the file.
        name: given to a tensor that needs none, such as an attribute's.

    Raises:
        InvalidInput: as `budget.refuse`: a type or shape that is not taken, bytes that do not fit.
    """
    tensor = read_message(raw, TENSOR, where, budget)
    called = tensor.text("name", MAX_NAME) if name is None else name
    if name is None:
        check_name(tensor, called)
    for field in ("segment", "string_data"):
        if tensor.has(field):
            tensor.wrong(f"{called[:100]!r} has {field}, which is not taken; numbers are")
    kind = tensor.integer("data_type")
    if kind not in TYPES:
        tensor.wrong(f"{called[:100]!r} has the type {kind}; plain numbers are taken, no strings")
    dtype, bits = TYPES[kind]
    shape = tensor.integers("dims", MAX_RANK)
    if any(not 0 <= size < MAX_DIMENSION for size in shape):
        tensor.wrong(f"{called[:100]!r} has shape {shape}, which no tensor has")
    size = (math.prod(shape) * bits + 7) // 8
    check_notes(tensor, budget)
    external = _external(tensor, called, size, budget)
    if external is None:
        _check_bytes(tensor, called, kind, math.prod(shape), size)
    return TensorFacts(called, dtype, shape, size, external)


def check_name(message: Message, name: str) -> None:
    """Refuse a name that is empty, too long or not printable."""
    if not name or not name.isprintable():
        message.wrong(f"the name {name[:100]!r} is empty or not printable")


def check_notes(message: Message, budget: Budget) -> None:
    """Check what carries no meaning: the doc string and the metadata."""
    message.text("doc_string", MAX_DOC)
    entries(message, "metadata_props", budget)


def entries(message: Message, field: str, budget: Budget) -> dict[str, str]:
    """Return a field of key-value pairs; refuses doubled keys and long lists."""
    pairs = message.all(field)
    if len(pairs) > MAX_ENTRIES:
        message.wrong(f"{field} has {len(pairs)} entries; at most {MAX_ENTRIES} are taken")
    found: dict[str, str] = {}
    for raw in pairs:
        pair = read_message(raw, ENTRY, f"{message.where} {field}", budget)
        key, value = pair.text("key", MAX_NAME), pair.text("value", MAX_ENTRY)
        if key in found:
            message.wrong(f"{field} has {key[:100]!r} twice")
        found[key] = value
    return found


def _external(tensor: Message, name: str, size: int, budget: Budget) -> External | None:
    stated = entries(tensor, "external_data", budget)
    if tensor.integer("data_location") == 0:
        if stated:
            tensor.wrong(f"{name[:100]!r} says that its bytes are inside and elsewhere")
        return None
    if tensor.integer("data_location") != 1:
        tensor.wrong(f"{name[:100]!r} has an unknown data_location")
    if tensor.has("raw_data") or any(tensor.has(field) for field in _LOOSE):
        tensor.wrong(f"{name[:100]!r} says that its bytes are inside and elsewhere")
    unknown = set(stated) - {"location", "offset", "length", "checksum"}
    part = stated.get("location", "")
    if unknown or PART_NAME.fullmatch(part) is None:
        tensor.wrong(
            f"{name[:100]!r} has its bytes at {part[:100]!r}; the location is the plain name of a "
            "part of the same upload: 1 to 128 of A-Z a-z 0-9 _ . -"
        )
    offset, length = stated.get("offset", "0"), stated.get("length", str(size))
    if _DECIMAL.fullmatch(offset) is None or length != str(size):
        tensor.wrong(
            f"{name[:100]!r} has offset {offset[:30]!r} and length {length[:30]!r}; "
            f"its shape needs {size} bytes"
        )
    return External(name, part, int(offset), size)


def _check_bytes(tensor: Message, name: str, kind: int, count: int, size: int) -> None:
    """Refuse a tensor whose bytes do not fill its shape, or that has them in two places."""
    given = [field for field in ("raw_data", *_LOOSE) if tensor.has(field)]
    if len(given) > 1:
        tensor.wrong(f"{name[:100]!r} has both {given[0]} and {given[1]}")
    if not given:
        if count:
            tensor.wrong(f"{name[:100]!r} has no data; its shape needs {size} bytes")
        return
    field = given[0]
    if field == "raw_data":
        found, needed, unit = len(tensor.bytes("raw_data") or b""), size, "bytes"
    else:
        if kind not in _LOOSE[field]:
            tensor.wrong(f"{name[:100]!r} has {field}, which its type does not use")
        width, unit = _WIDTHS.get(field), "numbers"
        found = tensor.count_wide(field, width) if width else tensor.count_integers(field)
        needed = (count + 1) // 2 if kind in (21, 22) else count
    if found != needed:
        tensor.wrong(f"{name[:100]!r} has {found} {unit}; its shape needs {needed}")

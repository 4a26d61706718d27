"""Protocol buffers and thrift structs changed inside, with the lengths around them put right."""

from __future__ import annotations

from random import Random

from tests.hostile.fuzz.plain import mutate_bytes, number, text

Field = tuple[int, int, bytes]


def varint(value: int) -> bytes:
    """Return an unsigned number of 64 bits as both formats write it."""
    value %= 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def read_varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number and where the next byte is; raises IndexError at the end."""
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def split_message(raw: bytes) -> list[Field] | None:
    """Return number, wire type and bytes of each field; None where this is no message."""
    fields: list[Field] = []
    at = 0
    try:
        while at < len(raw):
            tag, at = read_varint(raw, at)
            wire, start = tag & 7, at
            if wire == 0:
                _, at = read_varint(raw, at)
            elif wire == 2:
                size, start = read_varint(raw, at)
                at = start + size
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            else:
                return None
            if at > len(raw) or not tag >> 3:
                return None
            fields.append((tag >> 3, wire, raw[start:at]))
    except IndexError:
        return None
    return fields


def join_message(fields: list[Field]) -> bytes:
    """Return the message of fields."""
    out = bytearray()
    for index, wire, value in fields:
        out += varint(index << 3 | wire)
        if wire == 2:
            out += varint(len(value))
        out += value
    return bytes(out)


def mutate_message(rng: Random, raw: bytes) -> bytes:
    """Return a protocol buffer with something changed at any depth."""
    fields = split_message(raw)
    if not fields or rng.random() < 0.05:
        return mutate_bytes(rng, raw)
    at = rng.randrange(len(fields))
    index, wire, value = fields[at]
    if wire == 2 and rng.random() < 0.75:
        fields[at] = (index, wire, _mutate_value(rng, value))
        return join_message(fields)
    kind = rng.randrange(8)
    if kind == 0:
        fields.insert(rng.randrange(len(fields)), fields[at])
    elif kind == 1:
        del fields[at]
    elif kind == 2:
        fields[at] = (rng.choice((index + 1, rng.randrange(1, 30), 99)), wire, value)
    elif kind == 3:
        other = rng.randrange(len(fields))
        fields[at], fields[other] = fields[other], fields[at]
    elif kind == 4 and wire == 0:
        fields[at] = (index, 0, varint(number(rng)))
    elif kind == 5:
        for _ in range(rng.choice((1, 40, 400))):
            value = join_message([(index, 2, value)])
        fields[at] = (index, 2, value)
    elif kind == 6:
        fields += [fields[at]] * rng.choice((3, 300))
    else:
        fields[at] = (index, rng.choice((0, 1, 2, 5)), value)
    return join_message(fields)


def _mutate_value(rng: Random, value: bytes) -> bytes:
    if split_message(value) and rng.random() < 0.85:
        return mutate_message(rng, value)
    if rng.random() < 0.5:
        return text(rng).encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, value)


# Thrift's compact protocol: a value is (type, content); a struct's content a list of (id, value).
Value = tuple[int, object]


def read_struct(raw: bytes, at: int = 0) -> tuple[Value, int]:
    """Return a struct as a tree, and where it ends."""
    fields: list[tuple[int, Value]] = []
    index = 0
    while (head := raw[at]) != 0:
        at += 1
        if head >> 4:
            index += head >> 4
        else:
            value, at = read_varint(raw, at)
            index = (value >> 1) ^ -(value & 1)
        kind = head & 15
        content, at = ((kind, None), at) if kind in (1, 2) else _read_value(raw, at, kind)
        fields.append((index, content))
    return (12, fields), at + 1


def _read_value(raw: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind == 12:
        return read_struct(raw, at)
    if kind in (4, 5, 6):
        value, at = read_varint(raw, at)
        return (kind, value), at
    if kind == 8:
        size, at = read_varint(raw, at)
        return (kind, raw[at : at + size]), at + size
    if kind in (9, 10):
        count, inner = raw[at] >> 4, raw[at] & 15
        at += 1
        if count == 15:
            count, at = read_varint(raw, at)
        items: list[Value] = []
        for _ in range(count):
            item, at = _read_value(raw, at, inner)
            items.append(item)
        return (kind, (inner, items)), at
    size = 8 if kind == 7 else 1
    return (kind, raw[at : at + size]), at + size


def write_value(value: Value) -> bytes:
    """Return a value of a tree as bytes."""
    kind, content = value
    if kind == 12:
        out, last = bytearray(), 0
        for index, inner in content:  # type: ignore[attr-defined]
            delta = index - last
            if 0 < delta < 16:
                out.append(delta << 4 | inner[0])
            else:
                out += bytes((inner[0],)) + varint((index << 1) ^ (index >> 63))
            out += b"" if inner[0] in (1, 2) else write_value(inner)
            last = index
        return bytes(out) + b"\x00"
    if kind in (4, 5, 6):
        return varint(content)  # type: ignore[arg-type]
    if kind == 8:
        return varint(len(content)) + content  # type: ignore[arg-type,operator]
    if kind in (9, 10):
        inner_kind, items = content  # type: ignore[misc]
        head = bytes((min(len(items), 15) << 4 | inner_kind,))
        long = varint(len(items)) if len(items) >= 15 else b""
        return head + long + b"".join(map(write_value, items))
    return content  # type: ignore[return-value]


def mutate_struct(rng: Random, value: Value) -> Value:
    """Return a struct's tree with something changed at any depth."""
    kind, content = value
    if kind == 12 and content:
        fields = list(content)  # type: ignore[call-overload]
        at = rng.randrange(len(fields))
        index, inner = fields[at]
        choice = rng.randrange(16)
        if choice == 0:
            del fields[at]
        elif choice == 1:
            fields.insert(at, fields[at])
        elif choice == 2:
            fields[at] = (rng.choice((index + 1, rng.randrange(1, 20), -1)), inner)
        elif choice == 3:
            for _ in range(rng.choice((1, 20, 500))):
                inner = (12, [(index, inner)])
            fields[at] = (index, inner)
        else:
            fields[at] = (index, mutate_struct(rng, inner))
        return kind, fields
    if kind in (9, 10) and content[1]:  # type: ignore[index]
        inner_kind, items = content  # type: ignore[misc]
        items = list(items)
        at = rng.randrange(len(items))
        choice = rng.randrange(12)
        if choice == 0:
            del items[at]
        elif choice == 1:
            items += items
        elif choice == 2:
            items[at], items[0] = items[0], items[at]
        else:
            items[at] = mutate_struct(rng, items[at])
        return kind, (inner_kind, items)
    return _other(rng, value)


def _other(rng: Random, value: Value) -> Value:
    kind, content = value
    if kind in (4, 5, 6):
        moved = content + rng.choice((-2, 2, -1, 1, 512))  # type: ignore[operator]
        return rng.choice(((kind, number(rng)), (kind, 2 * number(rng)), (kind, moved), (8, b"x")))
    if kind == 8:
        raw = text(rng).encode("utf-8", "surrogatepass")
        return rng.choice(((8, raw), (8, mutate_bytes(rng, content)), (6, 1)))  # type: ignore[arg-type]
    if kind in (1, 2):
        return 3 - kind, None
    return rng.choice(((6, 1), (8, b""), (12, []), (9, (6, []))))

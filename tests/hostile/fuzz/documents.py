"""JSON documents with one thing changed: another value, a key lost, doubled, renamed, or depth."""

from __future__ import annotations

import json
from random import Random

from tests.hostile.fuzz.plain import number, text

DEPTH = 3_000


def mutate_json(rng: Random, document: object) -> bytes:
    """Return a document as text, changed at one to three places."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        document = _change(rng, document)
    raw = json.dumps(document, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return _textual(rng, raw) if rng.random() < 0.1 else raw


def _change(rng: Random, value: object) -> object:
    """Return a copy with a change at one random place; what is not on the way stays shared."""
    if isinstance(value, dict) and value and rng.random() < 0.93:
        key = rng.choice(list(value))
        if rng.random() < 0.85:
            return {**value, key: _change(rng, value[key])}
        rest = {k: v for k, v in value.items() if k != key}
        return rng.choice((rest, {**rest, text(rng): value[key]}, {**value, text(rng): 1}))
    if isinstance(value, list) and value and rng.random() < 0.93:
        at = rng.randrange(len(value))
        if rng.random() < 0.85:
            return [*value[:at], _change(rng, value[at]), *value[at + 1 :]]
        return rng.choice((value[:at], value + value, value[::-1], [*value, value[at]]))
    return _other(rng, value)


def _other(rng: Random, value: object) -> object:
    if isinstance(value, bool) or value is None:
        return rng.choice((True, False, None, 0, "true", [], {}))
    if isinstance(value, int) and rng.random() < 0.7:
        return rng.choice(
            (number(rng), -number(rng), value + 1, value - 1, value * 2, float(value))
        )
    if isinstance(value, str) and rng.random() < 0.7:
        return rng.choice((text(rng), value + text(rng), value[:-1], value * 2, value.upper()))
    return rng.choice(
        (
            None,
            True,
            0,
            -1,
            number(rng),
            1.5,
            1e308,
            text(rng),
            [],
            {},
            [value],
            {"a": value},
            [[]] * 9,
        )
    )


def _textual(rng: Random, raw: bytes) -> bytes:
    """Change what only the text has: depth, doubled keys, constants, encodings."""
    at = rng.randrange(len(raw) + 1)
    kind = rng.randrange(7)
    if kind == 0:
        return raw[:at] + b"[" * DEPTH + raw[at:]
    if kind == 1:
        return raw.replace(b'{"', b'{"' + raw[2:20].split(b'"')[0] + b'":1,"', 1)
    if kind == 2:
        return raw.replace(b":1", rng.choice((b":NaN", b":Infinity", b":-0", b":1e999", b":01")), 1)
    if kind == 3:
        return raw.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-8-sig", "utf-32")))
    if kind == 4:
        return raw[:at] + b"9" * 5_000 + raw[at:]
    if kind == 5:
        return b'{"a":' * DEPTH + raw + b"}" * DEPTH
    return raw[:at]

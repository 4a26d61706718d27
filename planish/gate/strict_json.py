"""JSON from strangers: no key twice, no NaN, no depth that overflows, no flood of tiny values."""

from __future__ import annotations

import json
from typing import NoReturn

FREE_MARKS = 100_000
DENSITY = 5
"""Bytes for each bracket or comma that a large document must have: 16 MiB of ``[],[],`` would
become more than 500 MB of Python lists."""


def load_json(raw: bytes) -> object:
    """Return a JSON document.

    Raises:
        ValueError: not UTF-8 JSON, a key twice, NaN or infinity, nested too deep, or too dense.
    """
    if sum(map(raw.count, (b",", b"[", b"{"))) > max(FREE_MARKS, len(raw) // DENSITY):
        raise ValueError("it holds more values than a document of its size has")
    try:
        value: object = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands twice")
    return members


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")

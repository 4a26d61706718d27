"""What Hugging Face's datasets notes about the columns in a parquet file's metadata."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from planish.contract.errors import InvalidData
from planish.gate.strict_json import load_json

MAX_NOTE = 1 << 20
MAX_CLASSES = 1_000_000
MAX_RANK = 16

_HUGGING_FACE, _ARROW = "huggingface", "ARROW:schema"
_PICKLED = b"arrow.py_extension_type"


@dataclass(frozen=True)
class Feature:
    """One column: `kind` as datasets calls it (``Image``, ``ClassLabel``, ``Array2D`` …).

    Attributes:
        kind: the feature's ``_type``; ``Sequence`` for lists, empty where there is none.
        classes: how many names a label has; None where there are none.
        shape: the fixed sizes of an array or list; empty where they are free.
    """

    kind: str
    classes: int | None
    shape: tuple[int, ...]


def read_features(notes: Mapping[str, str]) -> Mapping[str, Feature]:
    """Return the features by column; empty where the file has none.

    Raises:
        InvalidData: damaged, too large, or a type that is restored by running a pickle.
    """
    _check_arrow(notes.get(_ARROW, ""))
    raw = notes.get(_HUGGING_FACE)
    if raw is None:
        return {}
    try:
        note = load_json(raw.encode())
    except ValueError as error:
        raise _damaged(str(error)[:200]) from None
    info = note.get("info") if isinstance(note, dict) else None
    features = info.get("features") if isinstance(info, dict) else None
    if not isinstance(features, dict):
        raise _damaged("it has no info.features")
    return {name: _feature(value) for name, value in features.items()}


def _check_arrow(text: str) -> None:
    try:
        schema = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidData("the parquet file's ARROW:schema is damaged") from None
    if _PICKLED in schema:
        raise InvalidData(
            "the parquet file has a column type that is restored by running a pickle "
            "(arrow.py_extension_type); write plain numbers, lists or images"
        )


def _feature(value: object) -> Feature:
    if isinstance(value, list):
        return Feature("Sequence", None, ())
    if not isinstance(value, dict):
        raise _damaged("a feature is no object")
    kind = value.get("_type", "")
    if not isinstance(kind, str) or len(kind) > 100:
        raise _damaged("a feature's _type is no short text")
    names, shape, length = value.get("names"), value.get("shape"), value.get("length")
    if isinstance(names, list) and len(names) > MAX_CLASSES:
        raise _damaged(f"a label has {len(names)} classes; at most {MAX_CLASSES} are taken")
    sizes = shape if isinstance(shape, list) else [length]
    return Feature(kind, len(names) if isinstance(names, list) else None, _fixed(sizes))


def _fixed(sizes: list[object]) -> tuple[int, ...]:
    """Return the sizes of an array or list; nothing where one of them is free."""
    fixed = tuple(size for size in sizes if type(size) is int and 0 <= size < 1 << 40)
    return fixed if len(fixed) == len(sizes) <= MAX_RANK else ()


def _damaged(why: str) -> InvalidData:
    return InvalidData(f"the parquet file's huggingface metadata is not valid: {why}")

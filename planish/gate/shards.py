"""Sharded safetensors: the index must say of every tensor, exactly once, in which file it lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from planish.contract.errors import InvalidModel
from planish.gate.document import parse
from planish.gate.safetensors import MAX_TENSORS, TensorEntry, read_tensors

MAX_INDEX = 32 << 20


def check_shards(index: Path, shards: Mapping[str, Path]) -> dict[str, Path]:
    """Check an index against the headers of all its files.

    Args:
        index: ``model.safetensors.index.json``.
        shards: the files of the same upload by name.

    Returns:
        Where each tensor lies.

    Raises:
        InvalidModel: the index names a file that did not come or leaves one out, a tensor lies
            elsewhere, twice or nowhere, or the sizes disagree.
    """
    total, places = _read_index(index)
    if absent := sorted(set(places.values()) - set(shards)):
        raise InvalidModel(f"the index names files that did not come: {_few(absent)}")
    if spare := sorted(set(shards) - set(places.values())):
        raise InvalidModel(f"these files stand nowhere in the index: {_few(spare)}")
    found: dict[str, Path] = {}
    size = 0
    for name, path in shards.items():
        entries = _header(name, path)
        _check_places(name, entries, places)
        found |= {entry.name: path for entry in entries}
        size += sum(entry.size for entry in entries)
    if lost := sorted(set(places) - set(found)):
        raise InvalidModel(f"the index places tensors in files without them: {_few(lost)}")
    if total is not None and total != size:
        raise InvalidModel(f"the index says {total} bytes of tensors; the files hold {size}")
    return found


def _read_index(path: Path) -> tuple[float | None, dict[str, str]]:
    """Return the bytes that the index states, and the file of each tensor."""
    if (size := path.stat().st_size) > MAX_INDEX:
        raise InvalidModel(f"the index has {size} bytes; at most {MAX_INDEX} are taken")
    root = parse(path.read_bytes(), "the index").raw
    if not isinstance(root, dict) or not isinstance(root.get("weight_map"), dict):
        raise InvalidModel('the index has no "weight_map": {tensor: file}')
    places = root["weight_map"]
    if len(places) > MAX_TENSORS:
        raise InvalidModel(f"the index names {len(places)} tensors; at most {MAX_TENSORS}")
    wrong = next((key for key, name in places.items() if not isinstance(name, str)), None)
    if wrong is not None:
        raise InvalidModel(f"the index says of {wrong[:100]!r} no file name")
    stated = root.get("metadata")
    total = stated.get("total_size") if isinstance(stated, dict) else None
    if total is not None and (isinstance(total, bool) or not isinstance(total, int | float)):
        raise InvalidModel(f"the index's total_size is no number: {json.dumps(total)[:50]}")
    return total, places


def _header(name: str, path: Path) -> tuple[TensorEntry, ...]:
    try:
        return read_tensors(path, InvalidModel)
    except InvalidModel as error:
        raise InvalidModel(f"{name}: {error.detail}", error.errors) from None


def _check_places(name: str, entries: tuple[TensorEntry, ...], places: Mapping[str, str]) -> None:
    for entry in entries:
        if (place := places.get(entry.name)) != name:
            said = f"in {place[:100]}" if place else "nowhere"
            raise InvalidModel(f"{name} holds the tensor {entry.name!r}; the index has it {said}")


def _few(names: list[str]) -> str:
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(name[:100] for name in names[:5]) + rest

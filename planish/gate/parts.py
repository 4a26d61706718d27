"""Several files of one role: the weights, their index, and the companions that only ride along."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from planish.contract.errors import InvalidData, InvalidModel, MissingPart
from planish.contract.parts import CONFIG, is_index, is_rider
from planish.contract.problem import FieldError
from planish.gate.onnx import looks_like_onnx
from planish.gate.shards import check_shards

MAX_RIDER = 64 << 20
"""Bytes of one companion; the largest published tokenizers have half of it."""

MAX_RIDER_DEPTH = 64
_HEAD = 16

_JSON_MARK = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_DEEPER = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


@dataclass(frozen=True)
class Part:
    """One file and the name that it came under."""

    name: str
    path: Path


@dataclass(frozen=True)
class Parts:
    """Everything that came for one role, where that is more than one file."""

    files: tuple[Part, ...]


Source = Path | Parts
"""What came for one role."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model by their use.

    Attributes:
        weights: what a loader reads; more than one where they are sharded.
        riders: what goes into the result as it came.
        beside: files that the first of `weights` refers to by name.
    """

    weights: tuple[Path, ...]
    riders: tuple[Part, ...] = ()
    beside: tuple[Part, ...] = ()

    @property
    def main(self) -> Path:
        """The file whose content says the format."""
        return self.weights[0]

    @property
    def config(self) -> Path | None:
        """The ``config.json`` of a Hugging Face folder, None where none came."""
        return next((rider.path for rider in self.riders if rider.name == CONFIG), None)


def model_files(source: Source, role: str = "model") -> ModelFiles:
    """Sort the files of one model, and check index and companions.

    Args:
        source: what came.
        role: ``model``, ``teacher`` or ``student``; for the pointers of errors.

    Raises:
        InvalidModel: files that belong to nothing, a damaged index or companion.
        MissingPart: only companions came.
    """
    if isinstance(source, Path):
        return ModelFiles((source,))
    riders = riders_of(source)
    indices = [part for part in source.files if is_index(part.name)]
    weights = [part for part in source.files if part not in riders and part not in indices]
    for rider in riders:
        _check_rider(rider)
    if not weights:
        raise _absent(role, f"{_names(source.files)} came, but no weights among them")
    if len(indices) > 1:
        raise InvalidModel(f"{_names(indices)}: one index says where each tensor lies, not more")
    if indices:
        check_shards(indices[0].path, {part.name: part.path for part in weights})
    elif len(weights) > 1:
        if (graph := _graph_of(weights)) is not None:
            beside = tuple(part for part in weights if part is not graph)
            return ModelFiles((graph.path,), riders, beside)
        raise InvalidModel(
            f"{_names(weights)} came for {role}, and nothing says how they belong together; send "
            "one file, sharded safetensors with their model.safetensors.index.json, or an .onnx "
            "with the files of its weights; companions are known by their names (config.json, "
            "tokenizer.json, LICENSE, README.md, …)"
        )
    return ModelFiles(tuple(part.path for part in weights), riders)


def _graph_of(parts: Sequence[Part]) -> Part | None:
    """Return the ONNX graph among files that hold its weights, None where there is none."""
    found = []
    for part in parts:
        with part.path.open("rb") as file:
            if looks_like_onnx(file.read(_HEAD)):
                found.append(part)
    # Weights may begin with any bytes.
    named = [part for part in found if part.name.endswith(".onnx")]
    return (named or found)[0] if 1 in (len(named), len(found)) else None


def riders_of(source: Source) -> tuple[Part, ...]:
    """Return the companions among the files of one role."""
    files = source.files if isinstance(source, Parts) else ()
    return tuple(part for part in files if is_rider(part.name))


def only_file(source: Source, role: str) -> Path:
    """Return the one file of a role that takes no more; raises `InvalidData`."""
    if isinstance(source, Path):
        return source
    detail = f"{_names(source.files)} came for {role}; {role} is one file"
    raise InvalidData(detail, (FieldError(pointer=f"/files/{role}", detail=detail),))


def _check_rider(rider: Part) -> None:
    """Check what is kept but never read: its size, and how deep its JSON is nested."""
    size = rider.path.stat().st_size
    if size > MAX_RIDER:
        raise InvalidModel(f"{rider.name} has {size} bytes; companions may have {MAX_RIDER}")
    if rider.name.endswith(".json") and _depth(rider.path.read_bytes()) > MAX_RIDER_DEPTH:
        raise InvalidModel(f"{rider.name} is nested deeper than {MAX_RIDER_DEPTH} levels")


def _depth(raw: bytes) -> int:
    """Return how deep brackets are nested outside of strings, or one more than is allowed."""
    depth = deepest = 0
    for mark in _JSON_MARK.finditer(raw):
        depth += _DEEPER.get(mark.group(), 0)
        deepest = max(deepest, depth)
        if deepest > MAX_RIDER_DEPTH:
            break
    return deepest


def _absent(role: str, detail: str) -> MissingPart:
    return MissingPart(detail, (FieldError(pointer=f"/files/{role}", detail=detail),))


def _names(parts: Iterable[Part]) -> str:
    return ", ".join(part.name for part in parts)[:500]

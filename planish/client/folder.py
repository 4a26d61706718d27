"""Which files of a model's folder belong to the upload: the weights and their companions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from planish.contract.errors import MissingPart
from planish.contract.parts import is_index, is_part_name, is_rider

USUAL = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin", "model.onnx")
"""Where a folder holds several models, the first of these is meant."""

_ENDINGS = ((".safetensors",), (".bin", ".pt", ".pth"), (".pt2",), (".onnx",))
_BESIDE_ONNX = (".data", ".onnx_data", ".bin", ".weight")


def pick(folder: Path) -> Mapping[str, Path]:
    """Return the files of a Hugging Face folder, or of any folder with one model in it, by name.

    One set of weights is taken: sharded safetensors, a safetensors file, a checkpoint of torch, a
    ``.pt2`` or an ``.onnx`` with the files beside it. Tokenizer, configs, licence and readme ride
    along. Everything else, and what lies in folders below, stays where it is.

    Raises:
        MissingPart: there are no weights, or several and none of them has a usual name.
    """
    files = {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and is_part_name(path.name) and path.stat().st_size
    }
    riders = {name: path for name, path in files.items() if is_rider(name)}
    others = {name: path for name, path in files.items() if name not in riders}
    return {**_weights(folder, others), **riders}


def _weights(folder: Path, files: Mapping[str, Path]) -> Mapping[str, Path]:
    index = _chosen(folder, filter(is_index, files))
    if index is not None:
        return {name: folder / name for name in (index, *_shards(files[index]))}
    for endings in _ENDINGS:
        name = _chosen(folder, (name for name in files if name.endswith(endings)))
        if name is not None:
            beside = _beside(name, files) if name.endswith(".onnx") else {}
            return {name: files[name], **beside}
    raise MissingPart(
        f"{folder} holds no model: no .safetensors, .bin, .pt, .pth, .pt2 or .onnx file"
    )


def _beside(name: str, files: Mapping[str, Path]) -> Mapping[str, Path]:
    """Return the files that may hold the tensors of an ``.onnx``."""
    return {
        other: path
        for other, path in files.items()
        if other != name and (other.startswith(f"{name}.") or other.endswith(_BESIDE_ONNX))
    }


def _chosen(folder: Path, names: Iterable[str]) -> str | None:
    found = list(names)
    usual = [name for name in USUAL if name in found]
    if len(found) < 2 or usual:
        return next(iter(usual or found), None)
    raise MissingPart(
        f"{folder} holds several models: {', '.join(found)[:500]}; name the file, and its "
        "companions as further parts"
    )


def _shards(index: Path) -> list[str]:
    """Return the files that an index names, as far as it can be read: the server checks it."""
    try:
        places = json.loads(index.read_bytes())["weight_map"]
        return sorted({name for name in places.values() if is_part_name(name)})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MissingPart(f'{index} is no index: it has no "weight_map"') from None

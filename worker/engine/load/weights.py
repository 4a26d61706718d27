"""Weights and constants of a ``.pt2``: raw little-endian bytes with a description in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from planish.contract.errors import InvalidModel
from planish.gate.document import Value
from planish.gate.pt2 import MAX_RANK, SCALAR_TYPES, Package, payload_file
from planish.gate.symbols import read_size

STRIDED = 7
MAX_EXPANDED = 1 << 24


def read_tensors(package: Package, folder: str, kind: str) -> Mapping[str, Tensor]:
    """Return the tensors of a payload folder by their full names; parameters as `nn.Parameter`.

    Two names of one stored tensor (tied weights) give one object.

    Args:
        package: the opened file.
        folder: ``data/weights`` or ``data/constants``.
        kind: ``weights`` or ``constants``, as in the name of the config.

    Raises:
        UnsafeModel: a payload is pickled.
        InvalidModel: a tensor of an unknown type, or beyond its bytes.
    """
    storages: dict[str, Tensor] = {}
    used: set[str] = set()
    known: dict[tuple[object, ...], Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for name, meta in package.config(folder, kind).members():
        file = payload_file(name, meta)
        if file not in storages:
            storages[file] = _storage(package, f"{folder}/{file}")
        is_parameter = meta["is_param"].boolean()
        tensor = _view(storages[file], meta["tensor_meta"], name)
        key = (file, is_parameter, tensor.shape, tensor.stride(), tensor.storage_offset())
        if key not in known:
            alone = file not in used and len(storages[file]) == tensor.numel() * tensor.itemsize
            trains = meta["tensor_meta"]["requires_grad"].boolean() and tensor.is_floating_point()
            known[key] = _own(tensor, alone, trains, is_parameter)
            used.add(file)
        tensors[name] = known[key]
    return tensors


def _storage(package: Package, name: str) -> Tensor:
    entry = package.entry(name)
    content = torch.empty(entry.size, dtype=torch.uint8)
    if entry.size:
        package.archive.read_into(entry, content.numpy().data)
    return content


def _view(storage: Tensor, meta: Value, name: str) -> Tensor:
    """Return the tensor that a description cuts out of its bytes, bounds checked."""
    dtype = SCALAR_TYPES.get(meta["dtype"].integer())
    if dtype is None or meta["layout"].integer() != STRIDED:
        raise InvalidModel(f"{name[:200]!r} has a number type or layout that is not supported")
    size, stride = _sizes(meta["sizes"], name), _sizes(meta["strides"], name)
    [offset] = _sizes(Value([meta["storage_offset"].raw], meta.where), name)
    kind: torch.dtype = getattr(torch, dtype)
    flat = storage[: len(storage) - len(storage) % kind.itemsize].view(kind)
    if len(size) != len(stride) or len(size) > MAX_RANK:
        raise InvalidModel(f"{name[:200]!r} has a damaged shape")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last >= len(flat) or count > max(len(flat), MAX_EXPANDED)):
        raise InvalidModel(f"{name[:200]!r} reaches beyond its stored bytes")
    return flat.as_strided(size, stride, offset) if count else flat.new_empty(size)


def _own(view: Tensor, alone: bool, trains: bool, is_parameter: bool) -> Tensor:
    """Give a tensor its own memory where it shares some or repeats values, so that it can train."""
    tensor = view if alone else view.clone()
    return nn.Parameter(tensor, requires_grad=trains) if is_parameter else tensor


def _sizes(value: Value, name: str) -> list[int]:
    sizes = [read_size(item) for item in value.items()]
    plain = [size for size in sizes if isinstance(size, int) and 0 <= size < 1 << 40]
    if len(plain) != len(sizes):
        raise InvalidModel(f"{name[:200]!r} has a size that is no plain number")
    return plain

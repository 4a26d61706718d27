"""How much there is of a model: bytes on disk, parameters, and how many of them are not zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import zstandard
from torch import Tensor

from planish.contract.wire import beside
from worker.engine.model import Model
from worker.engine.quantize.float8 import Float8Linear
from worker.engine.quantize.packed import PackedLayer

ZSTD_LEVEL = 19
QUICKLY_COMPRESSED = 2_000_000
EVER_COMPRESSED = 200_000_000
MANY_ZEROS = 0.1
_CHUNK = 1 << 20

_INTEGER_PARAMETERS = (".weight", ".bias")
_INTEGER_TYPES = (torch.int8, torch.uint8, torch.int32)


@dataclass(frozen=True)
class ParameterCount:
    """Numbers that a model has learnt, and those among them that are not zero."""

    total: int
    nonzero: int


def file_bytes(path: Path) -> int:
    """Return the size of a model file in bytes, with that of weights that lie beside it."""
    return sum(part.stat().st_size for part in parts_of(path))


def compressed_bytes(path: Path) -> int:
    """Return the size of a model file, and of what lies beside it, under zstd at level 19."""
    total = 0
    for part in parts_of(path):
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
        with part.open("rb") as stored:
            while chunk := stored.read(_CHUNK):
                total += len(compressor.compress(chunk))
        total += len(compressor.flush())
    return total


def is_worth_compressing(path: Path, count: ParameterCount) -> bool:
    """Tell whether to pay for the compressed size: a megabyte takes level 19 about a second."""
    zeros = 1 - count.nonzero / max(count.total, 1)
    limit = EVER_COMPRESSED if zeros > MANY_ZEROS else QUICKLY_COMPRESSED
    return file_bytes(path) <= limit


def parts_of(path: Path) -> tuple[Path, ...]:
    """Return a model file and what belongs to it: an `.xml` has its weights in a `.bin`."""
    second = beside(path.name)
    return (path,) if second is None else (path, path.with_name(second))


def count_parameters(model: Model) -> ParameterCount:
    """Count weights and biases, float or integer: shared ones once, scales and statistics never."""
    counts = [layer.count() for layer in _packed(model)]
    counts += [(p.numel(), int(p.count_nonzero())) for p in model.module.parameters()]
    counts += [(i.numel(), int((i != zero).sum())) for i, zero in _integers(model)]
    return ParameterCount(
        total=sum(total for total, _ in counts), nonzero=sum(nonzero for _, nonzero in counts)
    )


def weight_bytes(model: Model) -> int:
    """Return the bytes of all weights and buffers in memory, shared ones once."""
    tensors = {id(tensor): tensor for tensor in model.module.state_dict(keep_vars=True).values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _packed(model: Model) -> list[PackedLayer | Float8Linear]:
    """Return the layers whose weight is packed or fp8, one of those that share it."""
    kinds = PackedLayer | Float8Linear
    layers = [layer for layer in model.module.modules() if isinstance(layer, kinds)]
    return list({id(layer.weight): layer for layer in layers}.values())


def _integers(model: Model) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the integers that took the place of weights, each with what stands for zero in it."""
    quantized = model.quantization.layers if model.quantization else ()
    points = {f"{layer.name}.weight": layer.zero_point for layer in quantized}
    packed = {id(layer.weight) for layer in _packed(model)}
    for name, tensor in model.module.named_buffers():
        if id(tensor) in packed:
            continue
        if name.endswith(_INTEGER_PARAMETERS) and tensor.dtype in _INTEGER_TYPES:
            zero = torch.tensor(points.get(name) or (0,), dtype=torch.int32)
            yield tensor, zero.reshape(-1, *[1] * (tensor.dim() - 1))

"""Layers whose weight is stored in integers and computed with in floats.

The bytes lie as ONNX Runtime's MatMulNBits reads them: (rows, blocks, bytes of a block), unsigned,
two four-bit values in a byte with the first in the low half. So one stored tensor serves the torch
graph, the `.pt2` file and the `.onnx` file, and an embedding and the output layer tied to it.
In torch the weight is unpacked by plain ATen arithmetic in each call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from worker.engine.model import Model
from worker.engine.quantize.grid import Grid

BLOCKS = (16, 32, 64, 128, 256)
_SCALE_BYTES = 4


@dataclass(frozen=True)
class Packed:
    """The bytes of a weight of shape (rows, columns).

    Attributes:
        weight: uint8 (rows, blocks, block * bits / 8).
        scale: float32 (rows, blocks).
        zero_point: uint8 (rows, bytes), two in a byte for four bits; None where symmetric.
        block: columns in a block.
        columns: without the padding of the last block.
        bits: 4 or 8.
    """

    weight: Tensor
    scale: Tensor
    zero_point: Tensor | None
    block: int
    columns: int
    bits: int


def pack(integers: Tensor, grid: Grid, *, product: bool = True) -> Packed:
    """Return the stored form of integers on a grid.

    Args:
        integers: int32 (rows, columns), signed.
        grid: their scales; a row's only scale is repeated for each of its blocks.
        product: whether a matrix product reads it, whose blocks are powers of two; a table that is
            only looked up in has one block in each row.
    """
    rows, columns = integers.shape
    block = _block(columns, grid, product)
    offset = 1 << (grid.bits - 1)
    stored = torch.full((rows, -(-columns // block) * block), offset, dtype=torch.int32)
    stored[:, :columns] = integers + offset
    stored = stored.reshape(rows, -1, block)
    repeat = stored.shape[1] // grid.scale.shape[1]
    zero = None
    if grid.bits == 4:
        zero = _halves(F.pad(grid.zero_point.repeat_interleave(repeat, 1) + offset, (0, 1)))
        zero = zero[:, : -(-stored.shape[1] // 2)].contiguous()
        stored = _halves(stored)
    return Packed(
        weight=stored.to(torch.uint8),
        scale=grid.scale.repeat_interleave(repeat, 1).contiguous(),
        zero_point=zero,
        block=block,
        columns=columns,
        bits=grid.bits,
    )


def _block(columns: int, grid: Grid, product: bool) -> int:
    if grid.group < columns:
        return grid.group
    if not product:
        return columns
    # The least bytes: padding costs as the weight does, each block costs a scale.
    return min(
        BLOCKS,
        key=lambda size: -(-columns // size) * (size * grid.bits / 8 + _SCALE_BYTES),
    )


def _halves(values: Tensor) -> Tensor:
    """Put two four-bit values into each byte; an odd last one gets no partner."""
    values = values[..., : values.shape[-1] // 2 * 2]
    return (values[..., ::2] | (values[..., 1::2] << 4)).to(torch.uint8)


class PackedLayer(nn.Module):
    """The weight of a layer in integers."""

    def __init__(self, packed: Packed, bias: nn.Parameter | None = None) -> None:
        """Hold the packed weight, and the float bias if there is one."""
        super().__init__()
        self.block, self.columns, self.bits = packed.block, packed.columns, packed.bits
        self.register_buffer("weight", packed.weight)
        self.register_buffer("weight_scale", packed.scale)
        self.register_buffer("weight_zero_point", packed.zero_point)
        self.weight: Tensor
        self.weight_scale: Tensor
        self.weight_zero_point: Tensor | None
        self.bias = bias

    def dequantized(self) -> Tensor:
        """Return the weight in floats, (rows, columns)."""
        steps = _unpack(self.weight) if self.bits == 4 else self.weight
        values = (steps.to(torch.float32) - self._zero()) * self.weight_scale.unsqueeze(-1)
        return values.flatten(1)[:, : self.columns]

    def count(self) -> tuple[int, int]:
        """Return how many weights there are, and how many of them are not zero."""
        weight = self.dequantized()
        return weight.numel(), int(weight.count_nonzero())

    def _zero(self) -> Tensor | float:
        if self.weight_zero_point is None:
            return float(1 << (self.bits - 1))
        points = _unpack(self.weight_zero_point)[:, : self.weight.shape[1]]
        return points.to(torch.float32).unsqueeze(-1)


class PackedLinear(PackedLayer):
    """A linear layer: floats in, floats out."""

    def forward(self, values: Tensor) -> Tensor:
        """Return (…, rows) of values (…, columns)."""
        return F.linear(values, self.dequantized(), self.bias)


class PackedEmbedding(PackedLayer):
    """A table of eight-bit rows: only the rows that are asked for become floats."""

    def forward(self, ids: Tensor) -> Tensor:
        """Return (…, columns) of integer ids (…)."""
        flat = ids.reshape(-1)
        steps = torch.index_select(self.weight, 0, flat).to(torch.float32) - 128.0
        rows = steps * torch.index_select(self.weight_scale, 0, flat).unsqueeze(-1)
        return rows.flatten(1)[:, : self.columns].reshape(*ids.shape, self.columns)


class RuntimeLinear(nn.Module):
    """A packed linear layer as ONNX Runtime's own operator; exists while a file is written."""

    def __init__(self, layer: PackedLinear) -> None:
        """Share the layer's tensors."""
        super().__init__()
        self.block, self.columns, self.bits = layer.block, layer.columns, layer.bits
        self.register_buffer("weight", layer.weight)
        self.register_buffer("weight_scale", layer.weight_scale)
        self.register_buffer("weight_zero_point", layer.weight_zero_point)
        self.weight: Tensor
        self.weight_scale: Tensor
        self.weight_zero_point: Tensor | None
        self.bias = layer.bias

    def forward(self, values: Tensor) -> Tensor:
        """Return (…, rows) of values (…, columns)."""
        rows = self.weight.shape[0]
        product: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::MatMulNBits",
            [values, self.weight, self.weight_scale, self.weight_zero_point],
            attrs={"K": self.columns, "N": rows, "bits": self.bits, "block_size": self.block},
            dtype=values.dtype,
            shape=(*values.shape[:-1], rows),
            version=1,
        )
        return product if self.bias is None else product + self.bias


def with_runtime_operators(model: Model) -> Model:
    """Return the model with its packed products as operators of ONNX Runtime; tensors are shared.

    A model without packed layers is returned as it is.
    """
    packed = {
        name: layer
        for name, layer in model.module.named_modules()
        if isinstance(layer, PackedLinear)
    }
    if not packed:
        return model
    copied = fx.GraphModule(model.module, model.module.graph)
    for name, layer in packed.items():
        copied.set_submodule(name, RuntimeLinear(layer))
    return model.with_module(copied.eval())


def _unpack(values: Tensor) -> Tensor:
    """Return the two halves of each byte, the low one first: the last dimension doubles."""
    return torch.stack((values & 15, values >> 4), -1).flatten(-2)

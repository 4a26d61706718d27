"""A convolution whose weight is stored as int8, one scale for each output channel."""

from __future__ import annotations

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers the operator below
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from worker.engine.quantize.grid import Grid

_CALLS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class PackedConv(nn.Module):
    """Floats in, floats out; the runtime turns the weight into floats when it loads or runs."""

    def __init__(self, layer: _ConvNd, integers: Tensor, grid: Grid) -> None:
        """Take the geometry of a convolution, and its weight as integers (channels, rest)."""
        super().__init__()
        self.call = _CALLS[layer.weight.dim() - 2]
        self.geometry: tuple[Any, ...] = (
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
        self.weight: Tensor
        self.weight_scale: Tensor
        self.weight_zero_point: Tensor
        self.register_buffer("weight", integers.reshape(layer.weight.shape).to(torch.int8))
        self.register_buffer("weight_scale", grid.scale[:, 0].contiguous())
        self.register_buffer("weight_zero_point", torch.zeros(len(integers), dtype=torch.int64))
        self.bias = nn.Parameter(layer.bias) if layer.bias is not None else None

    def dequantized(self) -> Tensor:
        """Return the weight in floats, in the shape of a convolution's."""
        weight: Tensor = torch.ops.quantized_decomposed.dequantize_per_channel.default(
            self.weight, self.weight_scale, self.weight_zero_point, 0, -127, 127, torch.int8
        )
        return weight

    def forward(self, values: Tensor) -> Tensor:
        """Return what the float convolution would, up to the rounding of its weight."""
        result: Tensor = self.call(values, self.dequantized(), self.bias, *self.geometry)
        return result

"""Linear layers in eight-bit floats (e4m3: 448 is the largest, three bits of mantissa).

Weights have one scale for each output channel, or one for all. Weight-only turns them back into
floats in each call; dynamic rounds the activations too, one scale for each row of them (or one for
all), and multiplies in fp8 on the tensor cores. torchao's fp8 tensors compute the same, but are
tensor subclasses, which an exported program can hold only as pickles; plain tensors and ATen calls
can be read by everybody. Source: Micikevicius et al. 2022, arXiv:2209.05433.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
_STEP = 16  # tensor cores take widths that are multiples of this


def to_float8(values: Tensor, *, whole: bool) -> tuple[Tensor, Tensor]:
    """Return values in fp8 and their scales, (rows, 1) float32, or (1, 1) for one scale.

    Args:
        values: (rows, columns).
        whole: one scale for all rows.
    """
    largest = values.abs().amax(1, keepdim=True)
    largest = largest.amax(0, keepdim=True) if whole else largest
    scale = largest.to(torch.float32).clamp(min=1e-12) / LARGEST
    return (values / scale).clamp(-LARGEST, LARGEST).to(FLOAT8), scale


def multiplies(layer: nn.Linear) -> bool:
    """Tell whether tensor cores take a layer's widths."""
    return layer.in_features % _STEP == 0 and layer.out_features % _STEP == 0


class Float8Linear(nn.Module):
    """A linear layer whose weight is fp8, and in dynamic mode its input as well."""

    def __init__(self, layer: nn.Linear, *, whole: bool, dynamic: bool) -> None:
        """Round the weight of a float layer."""
        super().__init__()
        weight, scale = to_float8(layer.weight.detach(), whole=whole)
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale)
        self.weight: Tensor
        self.weight_scale: Tensor
        self.bias = layer.bias
        self.whole, self.dynamic = whole, dynamic

    def count(self) -> tuple[int, int]:
        """Return how many weights there are, and how many of them are not zero."""
        return self.weight.numel(), int(self.weight.to(torch.float32).count_nonzero())

    def forward(self, values: Tensor) -> Tensor:
        """Return (…, rows) of values (…, columns), in the type of `values`."""
        if not self.dynamic:
            weight = self.weight.to(torch.float32) * self.weight_scale
            return F.linear(values, weight.to(values.dtype), self.bias)
        flat = values.reshape(-1, values.shape[-1])
        rounded, scale = to_float8(flat, whole=self.whole)
        product = torch._scaled_mm(
            rounded, self.weight.t(), scale, self.weight_scale.t(), out_dtype=torch.bfloat16
        )
        shaped = product.reshape(*values.shape[:-1], self.weight.shape[0]).to(values.dtype)
        return shaped if self.bias is None else shaped + self.bias

"""Rounding to nearest on a grid of scales and zero points, for weights alone.

``x_q = clamp(round(x / scale) + zero_point, low, high)`` and ``x ≈ (x_q - zero_point) * scale``
(Jacob et al. 2018, arXiv:1712.05877, section 2.1). Eight bits are symmetric; four bits use their 16
steps from the least to the largest weight of a group, which halves the error of lopsided groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Grid:
    """Scales and zero points of a weight of shape (rows, columns).

    Attributes:
        scale: float32 (rows, groups).
        zero_point: int32 (rows, groups), in the signed range: 0 where symmetric.
        group: columns that share a scale; the last group may be shorter.
        bits: 4 or 8.
    """

    scale: Tensor
    zero_point: Tensor
    group: int
    bits: int

    @property
    def low(self) -> int:
        """Least integer; -128 is left out, the symmetric range needs it not."""
        return -127 if self.bits == 8 else -8

    @property
    def high(self) -> int:
        """Largest integer."""
        return 127 if self.bits == 8 else 7

    def round(self, values: Tensor, columns: Tensor) -> Tensor:
        """Return the integers of some columns: (rows, len(columns)), int32."""
        scale, zero = self._of(columns)
        steps = torch.round(values / scale) + zero
        return steps.clamp(self.low, self.high).to(torch.int32)

    def values(self, integers: Tensor, columns: Tensor) -> Tensor:
        """Return what integers stand for, float32."""
        scale, zero = self._of(columns)
        return (integers - zero) * scale

    def _of(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        groups = columns // self.group
        return self.scale[:, groups], self.zero_point[:, groups]


def fit_grid(weight: Tensor, bits: int, group: int | None, *, whole: bool = False) -> Grid:
    """Return the grid that just holds a weight.

    Args:
        weight: float32 (rows, columns).
        bits: 4 (asymmetric) or 8 (symmetric).
        group: columns that share a scale; None for all columns of a row.
        whole: one scale for all rows.
    """
    rows, columns = weight.shape
    size = group or columns
    padded = torch.nn.functional.pad(weight, (0, -columns % size))
    groups = padded.reshape(rows, -1, size)
    least, largest = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    if whole:
        least, largest = least.min().expand_as(least), largest.max().expand_as(largest)
    if bits == 8:
        scale = torch.maximum(-least, largest) / 127
        zero = torch.zeros_like(scale)
    else:
        scale = (largest - least) / 15
        zero = torch.round(-least / scale.clamp(min=_SMALLEST)) - 8
    # A group of zeros has no range; any scale gives zeros back.
    scale = torch.where(scale > _SMALLEST, scale, torch.ones_like(scale))
    return Grid(scale, zero.clamp(-8 if bits == 4 else 0, 7).to(torch.int32), size, bits)


def round_to_nearest(weight: Tensor, grid: Grid) -> Tensor:
    """Return the integers of a whole weight: (rows, columns), int32."""
    return grid.round(weight, torch.arange(weight.shape[1]))

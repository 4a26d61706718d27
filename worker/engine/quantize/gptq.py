"""GPTQ: round column by column, and let the columns that are left make up for each error.

Frantar et al. 2022, arXiv:2210.17323, section 3 and algorithm 1: H = 2 X Xᵀ of the layer's
inputs, its inverse by Cholesky, lazy updates in blocks of 128 columns. Columns are taken by falling
diagonal of H ("act order"), on the scales of the groups that they stand in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker.engine.quantize.grid import Grid

LAZY = 128
DAMPING = 0.01


def gptq(weight: Tensor, hessian: Tensor, grid: Grid, *, act_order: bool = True) -> Tensor:
    """Return integers that lose less of the layer's output than rounding to nearest.

    Args:
        weight: float32 (rows, columns).
        hessian: sum over calibration inputs x of x xᵀ, float64 (columns, columns); its scale does
            not matter.
        grid: scales and zero points, which stay as they are.
        act_order: begin with the columns whose inputs are largest.

    Returns:
        int32 (rows, columns); what is zero stays zero.
    """
    order = torch.arange(weight.shape[1])
    if act_order:
        order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    factor = _inverse_factor(hessian[order][:, order])
    left = weight[:, order].to(torch.float64)
    pruned = left == 0  # no error of another column is worth filling a zero
    integers = torch.empty(weight.shape, dtype=torch.int32)
    for start in range(0, len(order), LAZY):
        stop = min(start + LAZY, len(order))
        errors = torch.empty(len(left), stop - start, dtype=torch.float64)
        for column in range(start, stop):
            place = order[column : column + 1]
            value = left[:, column : column + 1]
            kept = value.masked_fill(pruned[:, column : column + 1], 0.0)
            steps = grid.round(kept.float(), place)
            integers[:, place] = steps
            error = (value - grid.values(steps, place)) / factor[column, column]
            left[:, column:stop] -= error * factor[column, column:stop]
            errors[:, column - start : column - start + 1] = error
        left[:, stop:] -= errors @ factor[start:stop, stop:]
    return integers


def output_error(weight: Tensor, rounded: Tensor, hessian: Tensor) -> float:
    """Return ``|W X - W_q X|² / |W X|²`` over the inputs that a Hessian sums up."""
    difference = (weight - rounded).to(torch.float64)
    full = weight.to(torch.float64)
    noise = ((difference @ hessian) * difference).sum()
    signal = ((full @ hessian) * full).sum()
    return float(noise / signal) if signal > 0 else 0.0


def _inverse_factor(hessian: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the damped inverse."""
    damped = hessian.to(torch.float64).clone()
    diagonal = damped.diagonal()
    mean = diagonal.mean().clamp(min=1e-12)
    # An input that was always zero tells nothing: its column is rounded by itself.
    diagonal.add_(DAMPING * mean)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor

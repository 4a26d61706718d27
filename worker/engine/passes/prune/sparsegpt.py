"""SparseGPT: weights go column by column, and those that stay make up for them.

Frantar and Alistarh 2023, arXiv:2301.00774, algorithm 1. For every row the squared change of the
layer's outputs on calibration data, ``(w - w') H (w - w')^T`` with ``H = X X^T``, is kept small.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from worker.engine.masks import lowest, pattern
from worker.engine.passes.prune.sparse_layers import SparseLayer

BLOCK = 128
MAX_POSITIONS = 65_536
DAMPING = 0.01
"""Of the mean of H's diagonal, added to it (section 4.1 of the paper)."""

Choose = Callable[[Tensor, int], Tensor]
"""Given saliencies of a block of columns (rows, block) and its first column: which weights go."""


def hessian(layer: SparseLayer, inputs: Tensor) -> Tensor:
    """Return X X^T of a layer's inputs, (groups, inputs, inputs), in double precision.

    Of more than 65,536 positions evenly spaced ones stand for all: neighbours in an image say
    nearly the same.
    """
    total = torch.zeros(())
    positions = layer.columns(inputs[:1]).shape[1] * len(inputs)
    every = -(-positions // MAX_POSITIONS) | 1  # odd, so that no column of an image is left out
    for part in layer.chunks(inputs):
        columns = layer.columns(part.float())[:, ::every]
        total = total + (columns.transpose(1, 2) @ columns).double()
    return total


def inverse_factor(h: Tensor) -> Tensor:
    """Return the upper Cholesky factor U of the inverse, ``H^-1 = U^T U``, with damping.

    U[j, j]² is the j-th diagonal element of the inverse of H without the columns before j, which is
    what each step of the elimination needs (section 3.3 of the paper).
    """
    size = len(h)
    mean = float(h.diagonal().mean())
    damping = DAMPING * mean if mean > 0 else 1.0
    eye = torch.eye(size, dtype=h.dtype, device=h.device)
    for _ in range(8):
        lower, failed = torch.linalg.cholesky_ex(h + damping * eye)
        inverse = torch.cholesky_inverse(lower) if not failed else -eye
        factor, failed = torch.linalg.cholesky_ex(inverse, upper=True)
        if not failed and isinstance(factor, Tensor):
            return factor
        damping *= 10
    return eye / math.sqrt(damping)


def saliency(rows: Tensor, factor: Tensor) -> Tensor:
    """Return ``w² / U[j, j]²``: the squared output error of each weight's removal alone."""
    return (rows / factor.diagonal()) ** 2


def eliminate(rows: Tensor, factor: Tensor, choose: Choose, block: int = BLOCK) -> Tensor:
    """Return rows with weights removed and the others corrected.

    Args:
        rows: weights (outputs, inputs); what is zero already stays zero.
        factor: U of these inputs.
        choose: says which weights of a block go, seeing the corrections made so far.
        block: columns that are chosen together; corrections of later columns wait for its end.
    """
    weights, given = rows.double().clone(), rows == 0
    for start in range(0, weights.shape[1], block):
        end = min(start + block, weights.shape[1])
        part, local = weights[:, start:end], factor[start:end, start:end]
        errors = torch.zeros_like(part)
        # Corrections would fill zeros of an earlier pruning; they go first, and are no new loss.
        scores = saliency(part, local).masked_fill(given[:, start:end], -math.inf)
        gone = choose(scores, start) | given[:, start:end]
        for j in range(end - start):
            column = part[:, j]
            errors[:, j] = torch.where(gone[:, j], column, 0.0) / local[j, j]
            part[:, j:] -= errors[:, j, None] * local[j, None, j:]
        part.masked_fill_(gone, 0.0)
        weights[:, end:] -= errors @ factor[start:end, end:]
    return weights.to(rows.dtype)


def share_of_each_block(zeros: int, inputs: int) -> Choose:
    """Return a choice of the least salient weights, the same share in each block of columns.

    In all exactly `zeros` weights of rows of `inputs` go.
    """

    def choose(scores: Tensor, start: int) -> Tensor:
        before, after = (
            round(zeros * column / inputs) for column in (start, start + scores.shape[1])
        )
        return lowest(scores, after - before)

    return choose


def pattern_of(kept: int, of: int) -> Choose:
    """Return a choice that leaves the `kept` most salient of each `of` neighbours in a row.

    The rest of a row, shorter than a group, stays. Blocks of `of` columns let every group be chosen
    with the corrections of all groups before it.
    """
    return lambda scores, start: pattern(scores, kept, of)

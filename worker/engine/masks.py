"""Which weights go: the lowest scores of one layer, of all layers, or of each n:m group.

A mask has the shape of its weight and is True where the weight goes. Of equal scores the later ones
in the stored order go first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Scope = Literal["layer", "global"]
Masks = dict[str, Tensor]

LEAST_SHARE = 0.1
"""With one ranking over all layers, each keeps this part of what an equal share would leave it."""


def lowest(score: Tensor, count: int) -> Tensor:
    """Return the mask of the `count` lowest of the scores, whatever shape they have."""
    flat = score.flatten()
    gone = torch.zeros_like(flat, dtype=torch.bool)
    if count > 0:
        limit = flat.sort().values[count - 1]
        gone = flat < limit
        ties = (flat == limit).nonzero().flatten()
        gone[ties[len(ties) - (count - int(gone.sum())) :]] = True
    return gone.view(score.shape)


def lowest_of_all(scores: Mapping[str, Tensor], count: int) -> Masks:
    """Return the masks of the `count` lowest scores of all weights together.

    No layer dies: each keeps a tenth of what an equal share would leave it, at least one weight;
    the others lose what it may not.
    """
    if not scores:
        return {}
    total = sum(score.numel() for score in scores.values())
    kept = 1 - count / total
    guarded = {name: _guarded(score, kept) for name, score in scores.items()}
    ranked = torch.cat([score.flatten() for score in guarded.values()])
    gone = lowest(ranked, min(count, int((ranked < math.inf).sum())))
    parts = torch.split(gone, [score.numel() for score in scores.values()])
    shapes = [score.shape for score in scores.values()]
    return {n: part.view(s) for n, part, s in zip(scores, parts, shapes, strict=True)}


def not_above(scores: Mapping[str, Tensor], ratio: float, scope: Scope) -> Masks:
    """Return the masks of scores of at most `ratio` times the largest of the layer, or of all.

    Below a limit that all layers share, one may hold nothing but low scores: it keeps the largest,
    as many as `lowest_of_all` would leave it.
    """
    limits = {name: ratio * float(score.max()) for name, score in scores.items()}
    if scope == "global":
        limits = dict.fromkeys(limits, max(limits.values(), default=0.0))
    gone = {name: score <= limits[name] for name, score in scores.items()}
    total = sum(mask.numel() for mask in gone.values())
    kept = 1 - sum(int(mask.sum()) for mask in gone.values()) / max(total, 1)
    most = {name: mask.numel() - least_kept(mask.numel(), kept) for name, mask in gone.items()}
    return {
        name: mask if int(mask.sum()) <= most[name] else lowest(scores[name], most[name])
        for name, mask in gone.items()
    }


def pattern(rows: Tensor, kept: int, of: int) -> Tensor:
    """Return the mask of all but the `kept` largest of each `of` neighbours in a row.

    Args:
        rows: scores (outputs, inputs); a rest at the end of a row, shorter than a group, stays.
        kept: n of the pattern n:m.
        of: m.
    """
    width = rows.shape[1] // of * of
    groups = rows[:, :width].reshape(-1, of)
    order = groups.argsort(dim=1, descending=True, stable=True)
    gone = torch.zeros_like(rows, dtype=torch.bool)
    losers = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order[:, kept:], True)
    gone[:, :width] = losers.reshape(len(rows), width)
    return gone


def least_kept(weights: int, kept: float) -> int:
    """Return how many of its weights a layer keeps, where all layers keep the share `kept`."""
    return max(1, math.floor(LEAST_SHARE * kept * weights))


def _guarded(score: Tensor, kept: float) -> Tensor:
    """Return the scores with infinity for those that keep the layer alive."""
    flat = score.flatten().clone()
    flat[flat.topk(least_kept(flat.numel(), kept)).indices] = math.inf
    return flat.view(score.shape)

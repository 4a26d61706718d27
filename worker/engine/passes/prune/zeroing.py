"""Setting single weights to zero at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from planish.contract.recipe import Prune
from worker.engine.masks import Masks, lowest, lowest_of_all, not_above, pattern
from worker.engine.model import Model
from worker.engine.passes.protocol import Context
from worker.engine.passes.prune.ranking import Scores, by_row, calibration, named, rank, wanda
from worker.engine.passes.prune.sparse_layers import SparseLayer
from worker.engine.passes.prune.sparsegpt import (
    BLOCK,
    eliminate,
    hessian,
    inverse_factor,
    pattern_of,
    share_of_each_block,
)
from worker.engine.passes.prune.walk import walk

IN_ORDER = ("wanda", "sparsegpt")
"""Methods that look at the inputs of a layer, which change with the layers before it."""


def remove(model: Model, layers: Sequence[SparseLayer], params: Prune, ctx: Context) -> int:
    """Zero weights in place, and return on how many samples they were ranked.

    wanda and sparsegpt go through the network layer by layer; each is ranked, and corrected, on
    what the layers before it put out without their weights. With scope global one ranking of the
    whole network decides first; sparsegpt takes from it how many weights each layer loses.

    Raises:
        InvalidRecipe: the method needs data, or labels, and there are none.
    """
    if params.method in IN_ORDER and (params.scope == "layer" or params.structure == "n:m"):
        return _in_order(model, layers, equal_shares(layers, params), params, ctx)
    scores, samples = rank(model, layers, params, ctx)
    masks = choose(layers, scores, params)
    if params.method == "sparsegpt":
        zeros = {key: int(mask.sum()) for key, mask in masks.items()}
        return _in_order(model, layers, zeros, params, ctx)
    for layer in layers:
        layer.weight.masked_fill_(masks[layer.key], 0.0)
    return samples


def choose(layers: Sequence[SparseLayer], scores: Scores, params: Prune) -> Masks:
    """Return which weights go, by the weight's name."""
    if params.structure == "n:m":
        return {
            layer.key: layer.shaped(pattern(layer.rows(scores[layer.key]), *params.kept_of))
            for layer in layers
        }
    if params.threshold_ratio is not None:
        sizes = {key: score.clamp(min=0.0) for key, score in scores.items()}
        return not_above(sizes, params.threshold_ratio, params.scope)
    zeros = equal_shares(layers, params)
    if params.scope == "global":
        weights = sum(score.numel() for score in scores.values())
        return lowest_of_all(scores, round((params.sparsity or 0.0) * weights))
    return {key: lowest(score, zeros[key]) for key, score in scores.items()}


def equal_shares(layers: Sequence[SparseLayer], params: Prune) -> Mapping[str, int]:
    """Return how many zeros each weight has when all lose the same share; one always stays."""
    sizes = {layer.key: layer.weight.numel() for layer in layers}
    share = params.sparsity or 0.0
    return {key: min(round(share * size), size - 1) for key, size in sizes.items()}


def _in_order(
    model: Model,
    layers: Sequence[SparseLayer],
    zeros: Mapping[str, int],
    params: Prune,
    ctx: Context,
) -> int:
    done = 0

    def visit(layer: SparseLayer, inputs: Tensor) -> None:
        nonlocal done
        replace = _by_wanda if params.method == "wanda" else _by_sparsegpt
        rows = replace(layer, inputs, zeros[layer.key], params)
        layer.weight.copy_(layer.shaped(rows))
        done += 1
        ctx.progress.update(done / len(layers), f"pruned {layer.name}")

    dataset = calibration(ctx, params.method)
    return walk(model, named(layers), dataset, params.samples, ctx.device, visit)


def _by_wanda(layer: SparseLayer, inputs: Tensor, zeros: int, params: Prune) -> Tensor:
    rows = layer.rows(layer.weight)
    score = wanda(layer, inputs).masked_fill(rows == 0, -math.inf)
    if params.structure == "n:m":
        return rows.masked_fill(pattern(score, *params.kept_of), 0.0)
    return rows.masked_fill(lowest(by_row(score), zeros), 0.0)


def _by_sparsegpt(layer: SparseLayer, inputs: Tensor, zeros: int, params: Prune) -> Tensor:
    kept, of = params.kept_of
    found = []
    parts = layer.rows(layer.weight).chunk(layer.groups)
    for index, (rows, h) in enumerate(zip(parts, hessian(layer, inputs), strict=True)):
        factor = inverse_factor(h)
        if params.structure == "n:m":
            found.append(eliminate(rows, factor, pattern_of(kept, of), of))
            continue
        first, last = (round(zeros * i / len(parts)) for i in (index, index + 1))
        choice = share_of_each_block(last - first, rows.shape[1])
        found.append(eliminate(rows, factor, choice, BLOCK))
    return torch.cat(found)

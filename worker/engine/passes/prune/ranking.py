"""How much each single weight matters, by every method; larger stays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import Prune
from worker.engine.load.data import Dataset
from worker.engine.model import Model
from worker.engine.passes.protocol import Context
from worker.engine.passes.prune.gradients import loss_gradients, weight_scores
from worker.engine.passes.prune.sparse_layers import SparseLayer
from worker.engine.passes.prune.sparsegpt import hessian, inverse_factor, saliency
from worker.engine.passes.prune.walk import walk

Scores = dict[str, Tensor]
"""By the weight's name, in its shape; minus infinity where it is zero already."""


def rank(
    model: Model, layers: Sequence[SparseLayer], params: Prune, ctx: Context
) -> tuple[Scores, int]:
    """Score the weights of the layers as they are now, and return on how many samples.

    magnitude: |w|. random: seeded. gradient, taylor: see `weight_scores`. wanda: see `wanda`.
    sparsegpt: the error that the weight's removal makes (see `saliency`). With scope global the
    last two are divided by what the layer puts out in all, so that layers can be compared.

    Raises:
        InvalidRecipe: the method needs data, or labels, and there are none.
    """
    by_name = {layer.key: layer for layer in layers}
    samples = 0
    match params.method:
        case "magnitude":
            scores = {key: layer.weight.abs() for key, layer in by_name.items()}
        case "random":
            generator = torch.Generator().manual_seed(ctx.seed)
            scores = {
                key: torch.rand(layer.weight.shape, generator=generator)
                for key, layer in by_name.items()
            }
        case "gradient" | "taylor" as method:
            batches = loss_gradients(
                model, ctx.splits, ctx.spec.data.task, params.samples, ctx.device
            )
            samples = len(calibration(ctx, params.method).head(params.samples))
            found = weight_scores(model, batches, method)
            scores = {key: found[key] for key in by_name}
        case _:
            scores, samples = _by_inputs(model, layers, params, ctx)
    return {key: _zeros_first(score, by_name[key].weight) for key, score in scores.items()}, samples


def wanda(layer: SparseLayer, inputs: Tensor) -> Tensor:
    """Return ``|w| * ||x||`` (outputs, inputs); x are the values that a weight is multiplied with.

    Sun et al. 2023, arXiv:2306.11695, section 3; for convolutions x are those of the unfolded
    input.
    """
    # Columns only pick and repeat values, so that squares may be summed over samples first.
    squares = layer.columns(inputs.float().square().sum(0, keepdim=True)).sum(1)
    rows = layer.rows(layer.weight).abs()
    return rows * squares.sqrt().repeat_interleave(len(rows) // layer.groups, dim=0)


def by_row(rows: Tensor) -> Tensor:
    """Turn scores (outputs, inputs) into places within their row, so that all rows lose the same.

    Where the share does not divide a row, the first rows lose one more.
    """
    order = rows.argsort(dim=1, stable=True)
    places = torch.empty_like(rows, dtype=torch.double)
    steps = torch.arange(rows.shape[1], dtype=torch.double, device=rows.device)
    places.scatter_(1, order, steps.expand(rows.shape).contiguous())
    first = torch.arange(len(rows), dtype=torch.double, device=rows.device) / len(rows)
    return places + first[:, None]


def calibration(ctx: Context, method: str) -> Dataset:
    """Return the samples that weights are ranked on.

    Raises:
        InvalidRecipe: no data came.
    """
    if ctx.splits is None or not len(ctx.splits.calibration):
        raise InvalidRecipe(f"prune ranks by {method} on data; send a data file")
    return ctx.splits.calibration


def _by_inputs(
    model: Model, layers: Sequence[SparseLayer], params: Prune, ctx: Context
) -> tuple[Scores, int]:
    scores: Scores = {}

    def visit(layer: SparseLayer, inputs: Tensor) -> None:
        scores[layer.key] = layer.shaped(_score(layer, inputs, params)).cpu()

    dataset = calibration(ctx, params.method)
    used = walk(model, named(layers), dataset, params.samples, ctx.device, visit)
    return scores, used


def _score(layer: SparseLayer, inputs: Tensor, params: Prune) -> Tensor:
    if params.method == "wanda":
        score = wanda(layer, inputs)
        if params.scope == "global":
            return score / score.square().sum().sqrt().clamp(min=1e-30)
        return score if params.structure == "n:m" else by_row(score)
    parts = layer.rows(layer.weight).double().chunk(layer.groups)
    found, energy = [], torch.zeros((), dtype=torch.double, device=inputs.device)
    for rows, h in zip(parts, hessian(layer, inputs), strict=True):
        found.append(saliency(rows, inverse_factor(h)))
        energy = energy + ((rows @ h) * rows).sum()
    score = torch.cat(found)
    return score / energy.clamp(min=1e-30) if params.scope == "global" else score


def named(layers: Sequence[SparseLayer]) -> Mapping[str, SparseLayer]:
    """Return the layers by their names."""
    return {layer.name: layer for layer in layers}


def _zeros_first(score: Tensor, weight: Tensor) -> Tensor:
    return score.masked_fill(weight == 0, -math.inf)

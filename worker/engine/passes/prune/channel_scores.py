"""How much channels matter: the rankings of `prune` with structure `channel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from planish.contract.recipe import Prune
from worker.engine.model import Model
from worker.engine.passes.protocol import Context
from worker.engine.passes.prune.channel_flow import Flow
from worker.engine.passes.prune.channel_groups import ChannelGroup
from worker.engine.passes.prune.gradients import loss_gradients
from worker.engine.passes.prune.labels import Axis

NO_GAMMA = "no BatchNorm scales its channels: ranked by magnitude"
ON_LOSS = ("taylor", "gradient")
Measure = Callable[[str, int], Tensor | None]
"""Importance of each index along a dimension of the tensor at a path; None where it has none."""


def weight_scores(model: Model, params: Prune, ctx: Context) -> dict[str, Tensor]:
    """Return what the loss on the data says about each weight, by its path; empty if not asked.

    First-order, summed over batches: ``|dL/dw|`` for `gradient`, ``|w · dL/dw|`` for `taylor`
    (Molchanov et al. 2017, arXiv:1611.06440, section 2.2; 2019, arXiv:1906.10771, section 3.1).

    Raises:
        InvalidRecipe: there is no data, or it has no targets.
    """
    if params.method not in ON_LOSS:
        return {}
    weights = {name: p.detach().cpu() for name, p in model.module.named_parameters()}
    sums = {name: torch.zeros(weight.shape) for name, weight in weights.items()}
    for batch in loss_gradients(model, ctx.splits, ctx.spec.data.task, params.samples, ctx.device):
        for name, gradient in batch.items():
            term = gradient * weights[name] if params.method == "taylor" else gradient
            sums[name] += term.abs()
    return sums


def rank(
    groups: Sequence[ChannelGroup],
    model: Model,
    flow: Flow,
    params: Prune,
    gradients: Mapping[str, Tensor],
    seed: int,
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Return the groups with the scores of their units, and notes by producer.

    A unit's score is the mean over the weights that make, scale or read its channels of what each
    says. For the comparison of layers with each other, scores are divided by their mean over the
    units in the same layers (Fang et al. 2023, arXiv:2301.12900), and multiplied by the number of
    layers that make the unit: a channel of a residual stream is missed in every block. The two that
    estimate the loss are sums of first-order terms, and compare as they are.

    Args:
        groups: from `find_groups`.
        model: the float model.
        flow: its labels.
        params: the method.
        gradients: for `taylor` and `gradient`: a value for each weight, by its path.
        seed: of `random`.
    """
    if params.method == "random":
        generator = torch.Generator().manual_seed(seed)
        return [
            replace(g, scores=torch.rand(len(g.units), generator=generator)) for g in groups
        ], {}
    tensors = dict(model.module.named_parameters(remove_duplicate=False))
    uses = _uses(flow, params.method)
    ranked: list[ChannelGroup] = []
    notes: dict[str, str] = {}
    for group in groups:
        measure, mine = _measure(params.method, tensors, gradients), uses
        if params.method == "bn_scale" and not _touches(group, uses):
            measure, mine = _measure("magnitude", tensors, gradients), _uses(flow, "magnitude")
            notes |= dict.fromkeys(group.producers, NO_GAMMA)
        scores = _scores(group, mine, measure, params.method in ON_LOSS)
        if params.method not in ON_LOSS:
            scores = _relative(group, scores)
        ranked.append(replace(group, scores=scores))
    return ranked, notes


def _uses(flow: Flow, method: str) -> list[tuple[str, int, Axis]]:
    """Return the weights that a method looks at: path, dimension, labels along it."""
    norms = {f"{name}.weight" for name in flow.scaled}
    made = {f"{name}.weight": flow.labels.root(axis) for name, axis in flow.made.items()}
    uses = [
        (path, dim, flow.labels.root(axis))
        for path, axes in flow.stored.items()
        for dim, axis in enumerate(axes)
        if axis.any()
    ]
    if method == "bn_scale":
        return [use for use in uses if use[0] in norms]
    if method == "fpgm":
        # Filters are what the paper compares: the dimension that makes channels.
        return [use for use in uses if use[0] in made and _same(use[2], made[use[0]])]
    if method == "magnitude":
        return [use for use in uses if use[0] in norms | made.keys()]
    return uses


def _same(axis: Axis, made: Axis) -> bool:
    """Tell whether labels are those of a layer's outputs; a transposed one holds one group's."""
    return np.array_equal(axis, made[: len(axis)])


def _touches(group: ChannelGroup, uses: Sequence[tuple[str, int, Axis]]) -> bool:
    return any(np.isin(axis, group.units).any() for _, _, axis in uses)


def _measure(
    method: str, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> Measure:
    if method in ON_LOSS:
        return lambda path, dim: _summed(gradients.get(path), dim)
    if method == "fpgm":
        return lambda path, dim: _distances(tensors.get(path), dim)
    if method == "bn_scale":
        return lambda path, dim: _summed(tensors[path].abs() if path in tensors else None, dim)
    return lambda path, dim: _summed(tensors[path].square() if path in tensors else None, dim)


def _summed(values: Tensor | None, dim: int) -> Tensor | None:
    return (
        None
        if values is None
        else values.detach().float().movedim(dim, 0).reshape(values.shape[dim], -1).sum(1)
    )


def _distances(weight: Tensor | None, dim: int) -> Tensor | None:
    """Return each filter's summed distance to all others: the least lies at their median.

    He et al. 2019, arXiv:1811.00250, section 3.3.
    """
    if weight is None or weight.dim() < 2:
        return None
    filters = weight.detach().float().movedim(dim, 0).flatten(1)
    return torch.cdist(filters, filters).sum(1)


def _scores(
    group: ChannelGroup,
    uses: Sequence[tuple[str, int, Axis]],
    measure: Measure,
    total: bool,
) -> Tensor:
    """Return one score for each unit: the sum over all weights, or their mean."""
    place = {unit: i for i, unit in enumerate(group.units)}
    sums, counts = np.zeros(len(place)), np.zeros(len(place))
    for path, dim, axis in uses:
        indices = np.flatnonzero(np.isin(axis, group.units))
        values = measure(path, dim) if len(indices) else None
        if values is None:
            continue
        units = np.array([place[label] for label in axis[indices].tolist()])
        np.add.at(sums, units, values.cpu().numpy()[indices])
        counts[np.unique(units)] += 1
    return torch.from_numpy(sums if total else sums / np.maximum(counts, 1)).float()


def _relative(group: ChannelGroup, scores: Tensor) -> Tensor:
    """Divide by the mean over the units in the same layers; count each layer that makes them."""
    relative = scores.clone()
    holders = [
        tuple(counts[place] > 0 for counts in group.counts.values())
        for place in range(len(group.units))
    ]
    for held in set(holders):
        same = torch.tensor([other == held for other in holders])
        relative[same] = sum(held) * scores[same] / scores[same].mean().clamp_min(1e-30)
    return relative

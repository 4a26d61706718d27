"""Cross-layer equalization: scales move between layers until no channel is drowned by another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from worker.engine.model import Model, first_output
from worker.engine.quantize.streams import Layer, Stream, streams

_ROUNDS = 20
_SETTLED = 1e-3
_TOLERANCE = 1e-3
_LARGEST_STEP = 1e4


def equalize(model: Model) -> tuple[Model, tuple[Stream, ...]]:
    """Return a copy whose layers use their ranges alike along each stream, and the streams.

    For every channel i of a stream, what makes it and what reads it get the range ``sqrt(r1 *
    r2)``: row i of the makers (and their biases) is divided by ``s = sqrt(r1 / r2)``, column i of
    the readers multiplied; r1 and r2 are the largest absolute weights on either side. What stands
    between lets positive factors through, therefore the function stays, up to float rounding.
    Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1, where a stream has one maker and one
    reader; residual connections are streams of several.

    Args:
        model: float, in canonical form, its BatchNorms folded.
    """
    changed = model.clone()
    found = tuple(streams(changed))
    with torch.no_grad():
        for _ in range(_ROUNDS):
            moved = [_balance(*_sides(changed, stream)) for stream in found]
            if max(moved, default=0.0) < _SETTLED:
                break
    if not found or not _same_function(model, changed):
        return model, ()
    return changed, found


def _sides(model: Model, stream: Stream) -> tuple[list[Layer], list[Layer]]:
    return list(_layers(model, stream.makers)), list(_layers(model, stream.readers))


def _layers(model: Model, names: Sequence[str]) -> Iterator[Layer]:
    for name in names:
        layer = model.module.get_submodule(name)
        if not isinstance(layer, Layer):
            raise TypeError(f"{name} is no layer that scales can move through")
        yield layer


def _balance(makers: Sequence[Layer], readers: Sequence[Layer]) -> float:
    """Move scales from one side to the other; return the largest change as a logarithm."""
    made = torch.stack([layer.weight.detach().flatten(1).abs().amax(1) for layer in makers]).amax(0)
    read = torch.stack([_columns(layer, len(made)).abs().amax(1) for layer in readers]).amax(0)
    alive = (made > 0) & (read > 0)
    step = torch.where(alive, (made / read.clamp(min=1e-30)).sqrt(), torch.ones_like(made))
    step = step.clamp(1 / _LARGEST_STEP, _LARGEST_STEP)
    for layer in makers:
        layer.weight.div_(step.reshape(-1, *[1] * (layer.weight.dim() - 1)))
        if layer.bias is not None:
            layer.bias.div_(step)
    for layer in readers:
        _scale_columns(layer, step)
    return float(step.log().abs().max())


def _columns(layer: Layer, channels: int) -> Tensor:
    """Return all weights that read a channel: (channels, weights)."""
    weight = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        return weight.reshape(len(weight), channels, -1).transpose(0, 1).flatten(1)
    groups = layer.groups
    grouped = weight.reshape(groups, len(weight) // groups, channels // groups, -1)
    return grouped.transpose(1, 2).reshape(channels, -1)


def _scale_columns(layer: Layer, step: Tensor) -> None:
    if isinstance(layer, nn.Linear):
        layer.weight.mul_(step.repeat_interleave(layer.in_features // len(step)))
        return
    rows = len(layer.weight) // layer.groups
    factors = step.reshape(layer.groups, -1).repeat_interleave(rows, 0)
    layer.weight.mul_(factors.reshape(*factors.shape, *[1] * (layer.weight.dim() - 2)))


def _same_function(before: Model, after: Model) -> bool:
    example = before.example(4)
    with torch.no_grad():
        want, got = (first_output(model.module(*example)) for model in (before, after))
    return bool((want - got).norm() <= _TOLERANCE * want.norm().clamp(min=1e-12))

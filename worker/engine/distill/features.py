"""Features of inner layers: what a layer gives, seen as vectors at places (Romero et al. 2015).

A place is a pixel, a token, or the whole sample. Widths are made equal by a trained projection,
numbers of places by average pooling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from worker.engine.distill.taps import tapped
from worker.engine.model import Model
from worker.engine.passes.layers import layer_of, layers_before, output_layers

BATCH = 2
_CHANNELS_SECOND = (_ConvNd, _BatchNorm, _InstanceNorm, nn.GroupNorm)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding)
_ACTIVATIONS = (nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Mish)
_WITH_FEATURES = (*_CHANNELS_SECOND, *_CHANNELS_LAST, *_ACTIVATIONS)
_IMAGES = 4  # dimensions of a batch of them
_POOLS: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


@dataclass(frozen=True)
class Feature:
    """What one layer gives for each sample.

    Attributes:
        name: of the layer.
        width: channels.
        sizes: of the other dimensions: (H, W) of an image, (S,) of a sequence, () of a vector.
        channels_last: whether the channels are the last dimension, or the second one.
    """

    name: str
    width: int
    sizes: tuple[int, ...]
    channels_last: bool

    def __str__(self) -> str:
        places = "×".join(map(str, self.sizes))
        return f"{self.width} channels" + (f" at {places} places" if places else "")


@dataclass(frozen=True)
class Pair:
    """A student's layer and the teacher's layer that it follows."""

    student: Feature
    teacher: Feature


def features_of(model: Model) -> dict[str, Feature]:
    """Return the features of a network in graph order, without the layers that make its output.

    Activations on images count: that behind the sum is what a residual block gives.

    Args:
        model: run on noise at a batch of two.
    """
    module = model.module
    outputs = set(output_layers(module))
    kinds = {
        str(node.target): layer
        for node in module.graph.nodes
        if isinstance(layer := layer_of(module, node), _WITH_FEATURES)
        and outputs.isdisjoint((node.target, *layers_before(module, [node])))
    }
    with torch.no_grad(), tapped(module, kinds) as taps:
        module(*model.example(BATCH))
        found = {name: _feature(name, kinds[name], value) for name, value in taps.given.items()}
    return {name: feature for name in kinds if (feature := found.get(name)) is not None}


def _feature(name: str, layer: nn.Module, value: Tensor) -> Feature | None:
    if value.dim() < 2 or value.shape[0] != BATCH:
        return None
    if isinstance(layer, _ACTIVATIONS) and value.dim() != _IMAGES:
        return None
    last = isinstance(layer, _CHANNELS_LAST)
    sizes = value.shape[1:-1] if last else value.shape[2:]
    return Feature(name, value.shape[-1 if last else 1], tuple(sizes), last)


class Hint(nn.Module):
    """``mean (projection(student) - teacher)²`` of one pair (arXiv:1412.6550, section 2.1).

    The projection, a 1x1 convolution, exists only where the widths differ; it is trained with the
    student and thrown away.
    """

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.pair = pair
        narrow = pair.student.width, pair.teacher.width
        self.projection = nn.Linear(*narrow) if narrow[0] != narrow[1] else nn.Identity()

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None) -> Tensor:
        """Return the loss of a batch.

        Args:
            student: what the student's layer gave.
            teacher: what the teacher's layer gave.
            counted: (N, S), false for tokens that are padding; None counts all.
        """
        ours, theirs = _places(student, self.pair.student), _places(teacher, self.pair.teacher)
        ours, theirs = _pooled(ours, theirs)
        guess: Tensor = self.projection(ours)
        errors = (guess.float() - theirs.float()).square().mean(-1)
        if counted is None or counted.shape != errors.shape:
            return torch.mean(errors)
        return torch.sum(errors * counted) / counted.sum().clamp(min=1)


def _places(value: Tensor, feature: Feature) -> Tensor:
    """Return (N, *sizes, width)."""
    return value if feature.channels_last else value.movedim(1, -1)


def _pooled(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Average both down to the fewer places of each dimension."""
    sizes = tuple(map(min, ours.shape[1:-1], theirs.shape[1:-1]))
    return _pool(ours, sizes), _pool(theirs, sizes)


def _pool(value: Tensor, sizes: tuple[int, ...]) -> Tensor:
    if tuple(value.shape[1:-1]) == sizes:
        return value
    return _POOLS[len(sizes)](value.movedim(-1, 1), sizes).movedim(1, -1)

"""Channels that can only go together: torch-pruning's dependency graph over a model's graph.

Removing output channel i of a layer removes it from every layer that reads or adds to the same
tensor (Fang et al. 2023, arXiv:2301.12900). The dependency graph is inferred from autograd and
takes operators that it does not know for elementwise ones, so each group is proven on numbers when
it is cut: the thinner network must give what the old one gives with those channels silenced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch_pruning as tp
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from planish.contract.errors import InvalidRecipe
from worker.engine.passes.layers import Weighted
from worker.engine.passes.prune.shape_repair import (
    CannotRepair,
    Shapes,
    record_shapes,
    repair_shapes,
)

TOLERANCE = 1e-4
BROKEN = (RuntimeError, IndexError, ValueError, AssertionError, TypeError, ZeroDivisionError)


class CannotPrune(ValueError):
    """A group of layers cannot lose channels; the text says why."""


@dataclass(frozen=True)
class ChannelGroup:
    """Layers that lose the same channels.

    Attributes:
        producers: weighted layers whose output channels they are, the first names the group.
        width: number of channels.
        units: channels that go together (an attention head, one channel of each convolution group).
        why_units: what a unit is, in words; empty where it is a single channel.
        scores: importance of each unit, 1-D.
    """

    producers: tuple[str, ...]
    width: int
    units: tuple[tuple[int, ...], ...]
    why_units: str
    scores: Tensor

    @property
    def step(self) -> int:
        """Channels of one unit."""
        return len(self.units[0])


class DependentNode(Protocol):
    """A layer in torch-pruning's graph; `module` is a parameter where the graph uses one bare."""

    module: nn.Module


class Dependency(Protocol):
    """What happens to `target` when the root of a group loses channels."""

    target: DependentNode
    handler: Callable[..., object]


DependencyGroup = Sequence[tuple[Dependency, list[int]]]
Importance = Callable[[DependencyGroup], Tensor | None]


class ChannelGraph:
    """The dependency graph of one module, which `cut` changes in place.

    Args:
        module: a graph in eval mode whose parameters require gradients.
        example: inputs to trace with, batch 2.
        heads: attention heads of each projection, by layer name.

    Raises:
        InvalidRecipe: the graph cannot be traced.
    """

    def __init__(
        self, module: fx.GraphModule, example: tuple[Tensor, ...], heads: Mapping[str, int]
    ) -> None:
        self.module, self.example, self.heads = module, example, dict(heads)
        self._names = {layer: name for name, layer in module.named_modules()}
        self._shapes: Shapes = record_shapes(module, example)
        try:
            self._graph = _trace(module, example)
        except BROKEN as error:
            raise InvalidRecipe(
                "prune cannot follow how the channels of this model depend on each other "
                f"({type(error).__name__}); leave prune out"
            ) from error

    def groups(self, ignored: Sequence[str], importance: Importance) -> list[ChannelGroup]:
        """Return the groups that hold none of the ignored layers, in a fixed order.

        Raises:
            Refused: a group's channels do not map one to one.
        """
        modules = [self.module.get_submodule(name) for name in ignored]
        found = []
        for group in self._graph.get_all_groups(ignored_layers=modules):
            producers = self._producers(group)
            try:
                found.append(self._describe(group, producers, importance))
            except (CannotPrune, *BROKEN) as error:
                raise Refused(producers, _reason(error)) from error
        return found

    def cut(self, group: ChannelGroup, removed: Sequence[int]) -> None:
        """Remove channels of a group from all its layers and prove the result.

        Raises:
            Refused: the network does not follow; the module is not usable any more.
        """
        try:
            self._cut(group, removed)
        except (CannotPrune, CannotRepair, *BROKEN) as error:
            raise Refused(group.producers, _reason(error)) from error

    def _cut(self, group: ChannelGroup, removed: Sequence[int]) -> None:
        root = self.module.get_submodule(group.producers[0])
        handler = self._graph.get_pruner_of_module(root).prune_out_channels
        cut = self._graph.get_pruning_group(root, handler, sorted(removed))
        if not self._graph.check_pruning_group(cut):
            raise CannotPrune("a layer would lose its last channel")
        with _plain_norms([dep.target.module for dep, _ in cut]):
            with _silenced(self._readers(cut)):
                expected = self._run()
            cut.prune()
            kept_heads = (group.width - len(removed)) // group.step
            self.heads.update({name: kept_heads for name in group.producers if name in self.heads})
            repair_shapes(self.module, self.example, self._shapes, self.heads)
            _compare(expected, self._run())
        self._shapes = record_shapes(self.module, self.example)

    def _run(self) -> list[Tensor]:
        with torch.no_grad():
            return [t for t in tree_leaves(self.module(*self.example)) if isinstance(t, Tensor)]

    def _producers(self, group: DependencyGroup) -> tuple[str, ...]:
        """Return the weighted layers whose outputs a group thins, its root first."""
        modules = [
            dep.target.module
            for dep, _ in group
            if isinstance(dep.target.module, Weighted)
            and self._graph.is_out_channel_pruning_fn(dep.handler)
        ]
        return tuple(dict.fromkeys(self._names[m] for m in modules))

    def _readers(self, group: DependencyGroup) -> list[tuple[nn.Module, list[int]]]:
        """Return the layers that mix channels, with the input channels that a group takes away."""
        return [
            (dep.target.module, idxs)
            for dep, idxs in group
            if isinstance(dep.target.module, _ConvNd | nn.Linear)
            and self._graph.is_in_channel_pruning_fn(dep.handler)
            and not _depthwise(dep.target.module)
        ]

    def _describe(
        self, group: DependencyGroup, producers: tuple[str, ...], importance: Importance
    ) -> ChannelGroup:
        self._check_indices(group)
        width = len(group[0][1])
        units, why = self._units(group, producers, width)
        scores = importance(group)
        if scores is None:
            raise CannotPrune("nothing in it can be ranked")
        per_unit = torch.stack([scores[list(unit)].mean() for unit in units]).cpu()
        return ChannelGroup(producers, width, units, why, per_unit)

    def _check_indices(self, group: DependencyGroup) -> None:
        for dep, idxs in group:
            out = self._graph.is_out_channel_pruning_fn(dep.handler)
            channels = (self._graph.get_out_channels if out else self._graph.get_in_channels)(
                dep.target
            )
            whole = isinstance(dep.target.module, Weighted) and out
            partial = whole and not _depthwise(dep.target.module) and len(idxs) != channels
            if partial or (channels is not None and idxs and max(idxs) >= channels):
                raise CannotPrune(
                    "its channels meet a tensor of another width (a padded shortcut?)"
                )

    def _units(
        self, group: DependencyGroup, producers: tuple[str, ...], width: int
    ) -> tuple[tuple[tuple[int, ...], ...], str]:
        heads = {self.heads[name] for name in producers if name in self.heads}
        groups = math.lcm(*(self._channel_groups(dep.target.module) for dep, _ in group))
        if heads and (groups > 1 or len(heads) > 1):
            raise CannotPrune("it mixes attention heads of different counts")
        if heads:
            size = width // heads.pop()
            blocks = [tuple(range(i, i + size)) for i in range(0, width, size)]
            return tuple(blocks), f"whole attention heads of {size}"
        if width % groups:
            raise CannotPrune(f"its {width} channels do not divide into {groups} groups")
        strides = [tuple(range(i, width, width // groups)) for i in range(width // groups)]
        return tuple(strides), f"one channel of each of {groups} groups" if groups > 1 else ""

    @staticmethod
    def _channel_groups(layer: nn.Module) -> int:
        if isinstance(layer, nn.GroupNorm):
            return layer.num_groups
        return layer.groups if isinstance(layer, _ConvNd) and not _depthwise(layer) else 1


def _trace(module: fx.GraphModule, example: tuple[Tensor, ...]) -> tp.DependencyGraph:
    return tp.DependencyGraph().build_dependency(
        module,
        example_inputs=example,
        forward_fn=lambda net, inputs: net(*inputs),
        output_transform=lambda out: [t for t in tree_leaves(out) if t.requires_grad],
        verbose=False,
    )


class Refused(Exception):
    """These layers have to keep their channels, because of `why`."""

    def __init__(self, layers: tuple[str, ...], why: str) -> None:
        super().__init__(why)
        self.layers, self.why = layers, why


def _depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, _ConvNd) and layer.groups == layer.out_channels > 1


def _reason(error: Exception) -> str:
    if isinstance(error, CannotPrune | CannotRepair):
        return str(error)
    return f"the graph does not follow a change of its width ({type(error).__name__})"


@contextmanager
def _silenced(readers: list[tuple[nn.Module, list[int]]]) -> Iterator[None]:
    """Zero the given input channels of the given layers."""
    with ExitStack() as stack:
        for layer, idxs in readers:
            stack.callback(layer.register_forward_pre_hook(_zero_channels(idxs)).remove)
        yield


def _zero_channels(
    idxs: list[int],
) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = inputs
        dim = x.dim() - 1 if isinstance(layer, nn.Linear) else x.dim() - len(layer.kernel_size) - 1  # type: ignore[arg-type]
        return (x.index_fill(dim, torch.tensor(idxs, device=x.device), 0.0), *rest)

    return hook


@contextmanager
def _plain_norms(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Take the mixing out of normalizations over channels, so that channels can be told apart."""
    with ExitStack() as stack:
        for layer in layers:
            if isinstance(layer, nn.LayerNorm | nn.GroupNorm):
                stack.callback(layer.register_forward_hook(_affine_only).remove)
        yield


def _affine_only(layer: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
    x = inputs[0]
    weight, bias = layer.weight, layer.bias
    if not isinstance(weight, Tensor):
        return x
    per_channel = isinstance(layer, nn.GroupNorm)
    shape = (-1, *[1] * (x.dim() - 2)) if per_channel else tuple(weight.shape)
    scaled = x * weight.reshape(shape)
    return scaled + bias.reshape(shape) if isinstance(bias, Tensor) else scaled


def _compare(expected: list[Tensor], actual: list[Tensor]) -> None:
    """Require equal shapes and, up to rounding, equal values."""
    for a, b in zip(expected, actual, strict=True):
        if a.shape != b.shape:
            raise CannotPrune("the model's output would change its shape")
        scale = float(a.abs().max()) if a.numel() else 0.0
        if not float((a - b).abs().max() if a.numel() else 0.0) <= TOLERANCE * max(scale, 1e-3):
            raise CannotPrune("operations between layers mix or shift its channels")

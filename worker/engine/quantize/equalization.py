"""Cross-layer equalization: scales move between layers until no channel is drowned by another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from worker.engine.model import Model, first_output
from worker.engine.passes.layers import layer_of, operator_name

_ROUNDS = 20
_SETTLED = 1e-3
_TOLERANCE = 1e-3
_LARGEST_STEP = 1e4
_HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.MaxPool1d, nn.MaxPool2d)
_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.Flatten)
_ELEMENTWISE = {"relu", "relu_", "leaky_relu", "leaky_relu_", "dropout"}
_POOLING = {
    "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
}  # fmt: skip

Layer = nn.Conv1d | nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class Coupled:
    """Two layers of which the second alone reads the channels of the first."""

    first: str
    second: str


def equalize(model: Model) -> tuple[Model, tuple[Coupled, ...]]:
    """Return a copy whose coupled layers use their ranges alike, and the pairs that changed.

    For every channel i that one layer makes and the next one reads, both weights get the range
    ``sqrt(r1 * r2)``: row i of the first (and its bias) is divided by ``s = sqrt(r1 / r2)``, column
    i of the second multiplied. What stands between is positively homogeneous (ReLU, leaky ReLU,
    pooling, zero padding), therefore the function stays, up to float rounding; pairs are found
    where the first layer has one reader only, depthwise convolutions included. ReLU6 is no such
    function and its layers are left alone. Source: Nagel et al. 2019, arXiv:1906.04721, section
    4.1.

    Args:
        model: float, in canonical form, its BatchNorms folded.
    """
    changed = model.clone()
    pairs = tuple(coupled_layers(changed.module))
    with torch.no_grad():
        for _ in range(_ROUNDS):
            moved = [_balance(*_layers(changed.module, pair)) for pair in pairs]
            if max(moved, default=0.0) < _SETTLED:
                break
    if not pairs or not _same_function(model, changed):
        return model, ()
    return changed, pairs


def coupled_layers(module: fx.GraphModule) -> Iterator[Coupled]:
    """Yield every pair of layers that scales can move between."""
    calls: dict[str, int] = {}
    for node in module.graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    shared = _shared_weights(module)
    for node in module.graph.nodes:
        reader = _only_reader(module, node) if _is_layer(module, node) else None
        if reader is None:
            continue
        pair = Coupled(str(node.target), str(reader.target))
        single = calls[pair.first] == calls[pair.second] == 1
        if single and not {pair.first, pair.second} & shared and _fits(module, pair):
            yield pair


def _only_reader(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Follow the single users of a layer through homogeneous functions to the next layer."""
    at, flat = node, isinstance(layer_of(module, node), nn.Linear)
    while len(at.users) == 1:
        at = next(iter(at.users))
        if _is_layer(module, at):
            return at
        if not _homogeneous(module, at) or (flat and not _elementwise(module, at)):
            return None
    return None


def _is_layer(module: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(layer_of(module, node), Layer)


def _homogeneous(module: fx.GraphModule, node: fx.Node) -> bool:
    layer = layer_of(module, node)
    if layer is not None:
        return isinstance(layer, (*_HOMOGENEOUS, *_POOLS))
    name = operator_name(node)
    if name in ("constant_pad_nd", "pad"):
        return not any(isinstance(value, int | float) and value for value in node.args[2:])
    if name == "flatten":
        return node.args[1:2] == (1,)
    if name == "mean":
        return _over_positions(node.args[1] if len(node.args) > 1 else ())
    return name in _ELEMENTWISE | _POOLING


def _elementwise(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a homogeneous function keeps channels that stand in the last dimension."""
    if isinstance(layer_of(module, node), nn.ReLU | nn.LeakyReLU | nn.Identity | nn.Dropout):
        return True
    return operator_name(node) in _ELEMENTWISE


def _over_positions(dims: object) -> bool:
    """Whether a mean leaves samples and channels apart."""
    return isinstance(dims, list | tuple) and bool(dims) and set(dims) <= {2, 3, -1, -2}


def _layers(module: fx.GraphModule, pair: Coupled) -> tuple[Layer, Layer]:
    first, second = module.get_submodule(pair.first), module.get_submodule(pair.second)
    if not isinstance(first, Layer) or not isinstance(second, Layer):
        raise TypeError(f"{pair} are no layers that scales can move between")
    return first, second


def _fits(module: fx.GraphModule, pair: Coupled) -> bool:
    """Whether the second layer reads the channels of the first as they are, or flattened."""
    first, second = _layers(module, pair)
    made = first.weight.shape[0]
    if isinstance(first, nn.Linear) != isinstance(second, nn.Linear):
        return isinstance(second, nn.Linear) and second.in_features % made == 0
    read = second.in_features if isinstance(second, nn.Linear) else second.in_channels
    return read == made


def _balance(first: Layer, second: Layer) -> float:
    """Move scales between two layers; return the largest change as a logarithm."""
    rows = first.weight.detach().flatten(1)
    made = rows.abs().amax(1)
    read = _columns(second, len(rows)).abs().amax(1)
    alive = (made > 0) & (read > 0)
    step = torch.where(alive, (made / read.clamp(min=1e-30)).sqrt(), torch.ones_like(made))
    step = step.clamp(1 / _LARGEST_STEP, _LARGEST_STEP)
    first.weight.div_(_along(step, 0, first.weight))
    if first.bias is not None:
        first.bias.div_(step)
    _scale_columns(second, step)
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


def _along(step: Tensor, dim: int, weight: Tensor) -> Tensor:
    sizes = [1] * weight.dim()
    sizes[dim] = -1
    return step.reshape(sizes)


def _shared_weights(module: fx.GraphModule) -> set[str]:
    owners: dict[int, list[str]] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, Layer):
            owners.setdefault(layer.weight.data_ptr(), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def _same_function(before: Model, after: Model) -> bool:
    example = before.example(4)
    with torch.no_grad():
        want, got = (first_output(model.module(*example)) for model in (before, after))
    return bool((want - got).norm() <= _TOLERANCE * want.norm().clamp(min=1e-12))

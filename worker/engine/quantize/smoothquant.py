"""SmoothQuant: outliers of activations move into the weights behind them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from worker.engine.load.dataset import Dataset
from worker.engine.model import Model
from worker.engine.passes.layers import layer_of

_BATCH = 32
_FLOOR = 1e-5


@dataclass(frozen=True)
class Smoothed:
    """What was done in front of some linear layers that read the same value.

    Attributes:
        layers: their names.
        into: the normalization or layer that took the scale up; None where one was inserted.
        range_before: largest over median channel range of their input.
        range_after: the same afterwards.
    """

    layers: tuple[str, ...]
    into: str | None
    range_before: float
    range_after: float


def smooth(
    model: Model, layers: tuple[str, ...], samples: Dataset, strength: float = 0.5
) -> tuple[Model, tuple[Smoothed, ...]]:
    """Return a copy in which linear layers read inputs of even channel ranges, and what was done.

    Channel j of a linear layer's input is divided by ``s_j = max|x_j|^a / max|w_j|^(1 - a)`` and
    column j of its weight multiplied. The division is folded into the LayerNorm or linear layer
    that makes the value, where those linear layers are its only readers; elsewhere one
    multiplication is inserted. The function stays, up to float rounding. Source: Xiao et al. 2022,
    arXiv:2211.10438, section 4.

    Args:
        model: float, in canonical form.
        layers: which linear layers may change; others are left alone.
        samples: calibration samples.
        strength: a, 0 to 1: how much of the difference moves into the weights.
    """
    changed = model.clone()
    groups = _groups(changed.module, set(layers))
    ranges = _input_ranges(changed.module, groups, samples)
    done = []
    with torch.no_grad():
        for value, readers in groups.items():
            done.append(_move(changed.module, value, readers, ranges[value], strength))
    changed.module.recompile()
    return changed, tuple(done)


def _groups(module: fx.GraphModule, layers: set[str]) -> dict[fx.Node, list[fx.Node]]:
    """Return calls of linear layers by the value that they read; layers called once only."""
    calls: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        if isinstance(layer_of(module, node), nn.Linear):
            calls.setdefault(str(node.target), []).append(node)
    groups: dict[fx.Node, list[fx.Node]] = {}
    for name, nodes in calls.items():
        value = nodes[0].args[0]
        if len(nodes) == 1 and name in layers and isinstance(value, fx.Node):
            groups.setdefault(value, []).append(nodes[0])
    tied = _tied(module)
    return {
        value: readers
        for value, readers in groups.items()
        if not any(str(reader.target) in tied for reader in readers)
    }


def _tied(module: fx.GraphModule) -> set[str]:
    owners: dict[int, list[str]] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            owners.setdefault(layer.weight.data_ptr(), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def _input_ranges(
    module: fx.GraphModule, groups: dict[fx.Node, list[fx.Node]], samples: Dataset
) -> dict[fx.Node, Tensor]:
    """Return the largest absolute value of each channel of each value."""
    ranges: dict[fx.Node, Tensor] = {}
    handles = []
    for value, readers in groups.items():

        def note(_: nn.Module, inputs: tuple[Tensor, ...], value: fx.Node = value) -> None:
            seen = inputs[0].detach().abs().flatten(0, -2).amax(0)
            ranges[value] = torch.maximum(ranges[value], seen) if value in ranges else seen

        reader = module.get_submodule(str(readers[0].target))
        handles.append(reader.register_forward_pre_hook(note))
    try:
        with torch.no_grad():
            for inputs, _ in samples.batches(_BATCH):
                module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return ranges


def _move(
    module: fx.GraphModule, value: fx.Node, readers: list[fx.Node], seen: Tensor, strength: float
) -> Smoothed:
    names = tuple(str(reader.target) for reader in readers)
    linears = [_linear(module, name) for name in names]
    columns = torch.stack([layer.weight.abs().amax(0) for layer in linears]).amax(0)
    step = seen.clamp(min=_FLOOR) ** strength / columns.clamp(min=_FLOOR) ** (1 - strength)
    step = torch.where((seen > 0) & (columns > 0), step, torch.ones_like(step))
    step = step.clamp(_FLOOR, 1 / _FLOOR)
    for layer in linears:
        layer.weight.mul_(step)
    into = _fold(module, value, readers, step)
    if into is None:
        _insert(module, value, readers, step)
    return Smoothed(names, into, _spread(seen), _spread(seen / step))


def _linear(module: fx.GraphModule, name: str) -> nn.Linear:
    layer = module.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{name} is no linear layer")
    return layer


def _fold(
    module: fx.GraphModule, value: fx.Node, readers: list[fx.Node], step: Tensor
) -> str | None:
    """Divide the outputs of the layer that makes the value, if nobody else reads them."""
    maker = layer_of(module, value)
    calls = [n for n in module.graph.nodes if n.op == "call_module" and n.target == value.target]
    if set(value.users) != set(readers) or len(calls) != 1:
        return None
    if isinstance(maker, nn.LayerNorm) and maker.elementwise_affine:
        maker.weight.div_(step)
    elif isinstance(maker, nn.Linear) and str(value.target) not in _tied(module):
        maker.weight.div_(step[:, None])
    else:
        return None
    if maker.bias is not None:
        maker.bias.div_(step)
    return str(value.target)


def _insert(module: fx.GraphModule, value: fx.Node, readers: list[fx.Node], step: Tensor) -> None:
    """Put one multiplication between a value and the linear layers."""
    name = f"{readers[0].target}_smoothing".replace(".", "_")
    module.register_buffer(name, 1 / step)
    with module.graph.inserting_after(value):
        factor = module.graph.get_attr(name)
    with module.graph.inserting_after(factor):
        scaled = module.graph.call_function(torch.ops.aten.mul.Tensor, (value, factor))
    scaled.meta = dict(value.meta)
    for reader in readers:
        reader.replace_input_with(value, scaled)


def _spread(ranges: Tensor) -> float:
    median = float(ranges.median())
    return float(ranges.max()) / median if median else 1.0

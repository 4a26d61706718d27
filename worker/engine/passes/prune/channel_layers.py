"""How channels flow through layers of `torch.nn`."""

from __future__ import annotations

import numpy as np
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from worker.engine.load.attention import Attention
from worker.engine.passes.prune.channel_flow import FlowTracer
from worker.engine.passes.prune.channel_math import attention, elementwise
from worker.engine.passes.prune.labels import Axes, Axis, Labels, unlabelled

ELEMENTWISE = (
    nn.ReLU | nn.ReLU6 | nn.Hardtanh | nn.Hardswish | nn.Hardsigmoid | nn.SiLU | nn.Sigmoid
    | nn.Tanh | nn.Mish | nn.GELU | nn.LeakyReLU | nn.ELU | nn.Dropout | nn.Dropout1d
    | nn.Dropout2d | nn.Dropout3d | nn.AlphaDropout | nn.Identity
)  # fmt: skip
POOLS = nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d


def follow_layer(
    tracer: FlowTracer, node: fx.Node, layer: nn.Module, result: object
) -> Axes | None:
    """Return the labels of a layer's output; None where it is not known how they move."""
    if isinstance(layer, Attention):
        return attention(tracer, node, result)
    if isinstance(layer, ELEMENTWISE):
        return elementwise(tracer, node, result)
    (source,) = node.args[:1]
    axes = tracer.axes(source)
    if axes is None or not isinstance(result, Tensor):
        return None
    name = str(node.target)
    if isinstance(layer, _ConvNd):
        return _convolution(tracer, name, layer, axes, result)
    if isinstance(layer, nn.Linear):
        return _linear(tracer, name, layer, axes)
    if isinstance(layer, nn.Embedding):
        made = tracer.outputs(name, layer.embedding_dim)
        tracer.store(f"{name}.weight", (*unlabelled((layer.num_embeddings,)), made))
        return (*axes, made)
    if isinstance(layer, POOLS):
        return (*axes[:-2], *unlabelled(tuple(result.shape[-2:])))
    return _normalization(tracer, node, name, layer, axes)


def is_depthwise(layer: nn.Module) -> bool:
    """Tell whether a convolution gives each input channel outputs of its own."""
    return isinstance(layer, _ConvNd) and 1 < layer.groups == layer.in_channels


def _convolution(tracer: FlowTracer, name: str, layer: _ConvNd, axes: Axes, result: Tensor) -> Axes:
    dim, groups = len(axes) - len(layer.kernel_size) - 1, layer.groups
    read = axes[dim]
    inner: tuple[Axis, Axis]
    if is_depthwise(layer):
        made = np.repeat(read, layer.out_channels // groups)
        inner = (read, unlabelled((layer.out_channels // groups,))[0])
        if not layer.transposed:
            inner = (made, unlabelled((1,))[0])
        tracer.flow.made[name] = made
    else:
        made = tracer.outputs(name, layer.out_channels)
        tie_groups(tracer.labels, read, groups)
        tie_groups(tracer.labels, made, groups)
        _remember_read(tracer, name, read)
        inner = (made, read[: len(read) // groups])
        if layer.transposed:
            inner = (read, made[: len(made) // groups])
    tracer.store(f"{name}.weight", (*inner, *unlabelled(tuple(layer.weight.shape[2:]))))
    tracer.store(f"{name}.bias", (made,))
    spatial = unlabelled(tuple(result.shape[dim + 1 :]))
    return (*axes[:dim], made, *spatial)


def _linear(tracer: FlowTracer, name: str, layer: nn.Linear, axes: Axes) -> Axes:
    made = tracer.outputs(name, layer.out_features)
    _remember_read(tracer, name, axes[-1])
    tracer.store(f"{name}.weight", (made, axes[-1]))
    tracer.store(f"{name}.bias", (made,))
    return (*axes[:-1], made)


def _remember_read(tracer: FlowTracer, name: str, read: Axis) -> None:
    known = tracer.flow.read.setdefault(name, read)
    if known is not read:
        tracer.labels.join(known, read)


def _normalization(
    tracer: FlowTracer, node: fx.Node, name: str, layer: nn.Module, axes: Axes
) -> Axes | None:
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        for part in ("weight", "bias"):
            tracer.store(f"{name}.{part}", axes[-len(layer.normalized_shape) :])
        return axes
    if isinstance(layer, nn.GroupNorm):
        tie_groups(tracer.labels, axes[1], layer.num_groups)
    elif isinstance(layer, _BatchNorm):
        tracer.flow.scaled[name] = axes[1]
    elif not isinstance(layer, nn.PReLU):
        why = f"channels are not followed through {type(layer).__name__}"
        tracer.keep_all(node, why)
        return None
    if not (isinstance(layer, nn.PReLU) and layer.num_parameters == 1):
        for part in ("weight", "bias", "running_mean", "running_var"):
            tracer.store(f"{name}.{part}", (axes[1],))
    return axes


def tie_groups(labels: Labels, channels: Axis, groups: int) -> None:
    """Let every one of `groups` equal blocks lose the same places."""
    blocks = channels.reshape(groups, -1)
    for block in blocks[1:]:
        labels.join(blocks[0], block)

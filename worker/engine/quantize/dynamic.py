"""Dynamic int8: the weights' integers are fixed, the activations' are found anew in each call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, fx, nn

from planish.contract.recipe import Quantize
from worker.engine.load.attention import Attention
from worker.engine.model import Model, QuantizedLayer, first_output
from worker.engine.passes.layers import layer_of

_SMALLEST = 1e-30
_PRODUCTS = {
    torch.ops.aten.matmul.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.scaled_dot_product_attention.default,
}


def dynamic_layers(
    model: Model, params: Quantize, layers: tuple[str, ...]
) -> tuple[QuantizedLayer, ...]:
    """Return the integers that the ONNX writer will store for the linear layers in `layers`.

    int8 is symmetric: ``scale = max |w| / 127`` over a channel or the tensor, zero point 0. uint8
    spans from the least weight to the largest, zero included: ``scale = (max - min) / 255``,
    ``zero_point = round(-min / scale)``.
    """
    return tuple(_layer(model, name, params) for name in layers)


def computed_products(module: fx.GraphModule) -> int:
    """Return how many products multiply two computed values, as attention does: they stay float."""
    return sum(
        node.target in _PRODUCTS or isinstance(layer_of(module, node), Attention)
        for node in module.graph.nodes
    )


def simulated_sqnr(
    model: Model,
    layers: Sequence[str],
    params: Quantize,
    batches: Sequence[tuple[Tensor, ...]],
    wanted: Sequence[Tensor],
) -> float:
    """Return the signal to noise ratio, in dB, that the first output would have in integers.

    Weights and what each layer reads are rounded as the runtime does, and computed with in floats.

    Args:
        model: left as it is.
        layers: linear layers to round.
        params: dtype and granularity of the weights.
        batches: model-ready inputs.
        wanted: the float model's answers to them.
    """
    rounded = model.clone()
    signal = noise = 0.0
    with torch.no_grad(), ExitStack() as stack:
        for found in dynamic_layers(rounded, params, tuple(layers)):
            layer = rounded.module.get_submodule(found.name)
            layer.get_parameter("weight").copy_(_rounded(layer, found))
            handle = layer.register_forward_pre_hook(lambda _, given: (_per_call(given[0]),))
            stack.callback(handle.remove)
        for inputs, want in zip(batches, wanted, strict=True):
            got = first_output(rounded.module(*inputs))
            signal += float(want.double().square().sum())
            noise += float((got - want).double().square().sum())
    return 10 * math.log10(signal / noise) if signal and noise else math.inf


def _rounded(layer: nn.Module, integers: QuantizedLayer) -> Tensor:
    weight = layer.get_parameter("weight").detach()
    scale = torch.tensor(integers.scale).clamp(min=_SMALLEST)[:, None]
    zero = torch.tensor(integers.zero_point)[:, None]
    return (torch.round(weight / scale + zero) - zero) * scale


def _per_call(values: Tensor) -> Tensor:
    """Round to uint8 over the range of one call, as DynamicQuantizeLinear does."""
    low, high = values.min().clamp(max=0), values.max().clamp(min=0)
    scale = ((high - low) / 255).clamp(min=_SMALLEST)
    zero = torch.round(-low / scale)
    return (torch.clamp(torch.round(values / scale) + zero, 0, 255) - zero) * scale


def _layer(model: Model, name: str, params: Quantize) -> QuantizedLayer:
    weight = model.module.get_submodule(name).weight
    if not isinstance(weight, Tensor):
        raise TypeError(f"{name} has no weight tensor")
    rows = weight.detach() if params.granularity == "channel" else weight.detach().reshape(1, -1)
    if params.dtype == "uint8":
        least, largest = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
        scale = (largest - least) / 255
        zero = torch.round(-least / torch.where(scale > 0, scale, 1.0)).to(torch.int64)
    else:
        scale = rows.abs().amax(1) / 127
        zero = torch.zeros(len(scale), dtype=torch.int64)
    return QuantizedLayer(
        name=name,
        dtype=params.dtype,
        scale=tuple(scale.tolist()),
        zero_point=tuple(zero.tolist()),
    )

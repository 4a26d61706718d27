"""Dynamic int8: the weights' integers are fixed, the activations' are found anew in each call."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from planish.contract.recipe import Quantize
from worker.engine.load.attention import Attention
from worker.engine.model import Model, QuantizedLayer
from worker.engine.passes.layers import layer_of

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

"""Which layers become integers, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Quantize
from planish.contract.report import LayerSkipped
from worker.engine.model import Model
from worker.engine.passes.layers import layer_of, matching_layers
from worker.engine.passes.protocol import Context

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_COMPUTED = {
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.linear.default,
}


@dataclass(frozen=True)
class Selection:
    """Layers with weights, in graph order.

    Attributes:
        chosen: names of those that become int8.
        skipped: those that stay float, and why.
    """

    chosen: tuple[str, ...]
    skipped: tuple[LayerSkipped, ...]


def select_layers(module: fx.GraphModule, params: Quantize, step: int) -> Selection:
    """Choose the layers for int8.

    Args:
        module: a float graph in canonical form, its BatchNorm layers folded where possible.
        params: the pass.
        step: position in the recipe, from 1; errors point at it.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
    """
    kept = set(matching_layers(module, params.keep_float, f"/recipe/{step - 1}/keep_float"))
    reasons = dict(_reasons(module, params, kept))
    for name in _sharing_with_float(module, reasons):
        reasons[name] = "shares its weight with a layer that stays float"
    return Selection(
        chosen=tuple(name for name, why in reasons.items() if not why),
        skipped=tuple(LayerSkipped(name=name, why=why) for name, why in reasons.items() if why),
    )


def _reasons(module: fx.GraphModule, params: Quantize, kept: set[str]) -> Iterator[tuple[str, str]]:
    """Yield each layer with weights, and why it stays float; an empty reason: it does not."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in _COMPUTED:
            yield node.name, "its weight is computed in the graph"
        layer = layer_of(module, node)
        if layer is None or next(layer.parameters(), None) is None:
            continue
        name = str(node.target)
        yield name, "named in keep_float" if name in kept else _why_float(layer, params)


def _why_float(layer: nn.Module, params: Quantize) -> str:
    if isinstance(layer, nn.Linear):
        return ""
    if params.mode == "weight_only" and isinstance(layer, (*_CONVOLUTIONS, nn.Embedding)):
        return ""
    if params.mode == "dynamic" and isinstance(layer, nn.Embedding):
        return ""
    if isinstance(layer, _ConvTransposeNd):
        return "the target has no int8 kernel for transposed convolutions"
    if isinstance(layer, _CONVOLUTIONS):
        if params.mode in ("static", "qat"):
            return ""
        return "dynamic int8 covers matrix products only; static covers convolutions"
    if isinstance(layer, nn.Embedding):
        return "a table lookup computes nothing that integers would speed up"
    if isinstance(layer, _BatchNorm):
        return "could not be folded into a layer before it"
    return f"the target has no int8 kernel for {type(layer).__name__}"


def _sharing_with_float(module: fx.GraphModule, reasons: dict[str, str]) -> Iterator[str]:
    """Yield chosen layers whose weight a float layer uses too: the file would hold it twice."""
    layers = dict(module.named_modules())
    weights = {name: id(getattr(layers.get(name), "weight", None)) for name in reasons}
    in_float = {weights[name] for name, why in reasons.items() if why and name in layers}
    yield from [name for name, why in reasons.items() if not why and weights[name] in in_float]


def select_quantizable(model: Model, params: Quantize, context: Context) -> Selection:
    """Return the layers that can be quantized.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: there is none.
    """
    selection = select_layers(model.module, params, context.step)
    if not selection.chosen:
        raise NothingChanged(_nothing(params, selection.skipped))
    return selection


def _nothing(params: Quantize, skipped: tuple[LayerSkipped, ...]) -> str:
    if params.mode == "dynamic" and any("dynamic int8" in layer.why for layer in skipped):
        return (
            "dynamic int8 covers matrix products only and this model has none; "
            'set mode to "static" to quantize its convolutions'
        )
    reasons = "; ".join(f"{layer.name}: {layer.why}" for layer in skipped[:5])
    return f"no layer can become int8 ({reasons or 'the model has no layers with weights'})"

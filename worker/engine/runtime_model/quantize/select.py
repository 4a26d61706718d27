"""Which layers of an ONNX graph become integers, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import ModelProto, NodeProto

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Quantize
from worker.engine.passes.layers import matching_names
from worker.engine.runtime_model.layers import LOOKUP, RECURRENT, Layer, layers_of
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.protocol import Chosen, chosen

_PRODUCTS = ("MatMul", "Gemm")


def select(model: RuntimeModel, params: Quantize, step: int) -> Chosen:
    """Return the layers that can be quantized.

    Args:
        model: float, simplified.
        params: the pass.
        step: position in the recipe, from 1; errors point at it.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: there is none.
    """
    found = chosen(list(_reasons(model.proto, params, step)))
    if not found.names:
        raise NothingChanged(_nothing(params, found))
    return found


def _reasons(proto: ModelProto, params: Quantize, step: int) -> Iterator[tuple[str, str]]:
    layers = layers_of(proto)
    nodes = {node.name: node for node in proto.graph.node}
    pointer = f"/recipe/{step - 1}/keep_float"
    kept = set(matching_names([layer.name for layer in layers], params.keep_float, pointer))
    whys = {
        layer.name: "named in keep_float"
        if layer.name in kept
        else _why_float(layer, nodes[layer.name], params)
        for layer in layers
    }
    in_float = {layer.weight for layer in layers if whys[layer.name]}
    for layer in layers:
        why = whys[layer.name]
        if not why and layer.weight in in_float:
            why = "shares its weight with a layer that stays float"
        yield layer.name, why


def _why_float(layer: Layer, node: NodeProto, params: Quantize) -> str:
    if not layer.is_float:
        return "its weight is no plain float32 constant"
    if layer.kind in RECURRENT:
        return f"the runtime's quantizer has no {layer.kind}"
    if layer.kind == LOOKUP:
        if params.mode == "static":
            return "a table lookup computes nothing that integers would speed up"
        return ""
    if layer.kind == "ConvTranspose":
        return "the target has no int8 kernel for transposed convolutions"
    if layer.kind == "Conv":
        if params.mode == "dynamic":
            return "dynamic int8 covers matrix products only; static covers convolutions"
        return ""
    return _why_not_product(layer, node, params)


def _why_not_product(layer: Layer, node: NodeProto, params: Quantize) -> str:
    if len(layer.shape) != 2:
        return f"its weight has {len(layer.shape)} dimensions; products with matrices are quantized"
    numbers = {a.name: a.f if a.name in ("alpha", "beta") else a.i for a in node.attribute}
    plain = numbers.get("alpha", 1.0) == 1.0 == numbers.get("beta", 1.0)
    if params.mode != "static" and (not plain or numbers.get("transA", 0)):
        return "it scales or transposes what it multiplies"
    return ""


def _nothing(params: Quantize, found: Chosen) -> str:
    if params.mode == "dynamic" and any("dynamic int8" in layer.why for layer in found.skipped):
        return (
            "dynamic int8 covers matrix products only and this model has none; "
            'set mode to "static" to quantize its convolutions'
        )
    return f"no layer can become {params.dtype} ({found.why()})"

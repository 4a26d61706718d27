"""Quantize, mode dynamic, of an ONNX graph: ONNX Runtime's `quantize_dynamic` on products."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import quantize_dynamic
from pydantic import JsonValue

from planish.contract.recipe import Quantize
from planish.contract.report import PassPlan
from worker.engine.model import Quantization, QuantizedLayer
from worker.engine.passes.protocol import Surroundings
from worker.engine.passes.quantize.facts import changed, scale_facts
from worker.engine.runtime_model.layers import LOOKUP, Layer, layers_of
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.protocol import Chosen, RuntimeOutcome
from worker.engine.runtime_model.quantize.integers import (
    amount_after,
    float_layers,
    integers_of,
    words,
)
from worker.engine.runtime_model.quantize.select import select
from worker.engine.runtime_model.quantize.stored import store_tables
from worker.engine.runtime_model.quantize.ways import WEIGHTS
from worker.engine.runtime_model.tidy import recompact
from worker.engine.save.onnx import exporter_silenced

_PRODUCTS = ["MatMul", "Gemm"]
_SLOW_DTYPE = (
    "ONNX Runtime's kernels for uint8 weights are no faster than float on CPUs of this kind; int8 "
    "weights are"
)


def run(model: RuntimeModel, params: Quantize, around: Surroundings) -> RuntimeOutcome:
    """Put matrix products into integers, with ranges found in each call; tables are stored in int8.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can become int8.
    """
    selection = select(model, params, around.step)
    layers = float_layers(model.proto, selection.names)
    products = [layer for layer in layers if layer.kind != LOOKUP]
    tables = store_tables(model.proto, [layer for layer in layers if layer.kind == LOOKUP])
    proto = tables.proto
    if products:
        proto = _quantized(proto, params, products)
    found, zeros = integers_of(proto, products)
    integers = _in_order(layers, {layer.name: layer for layer in (*found, *tables.layers)})
    recompact(proto)
    return RuntimeOutcome(
        model=replace(
            model,
            proto=proto,
            amount=amount_after(model.proto, model.amount, layers, zeros + tables.zeros),
            quantization=Quantization(
                params, integers, tuple(layer.name for layer in selection.skipped)
            ),
        ),
        changed=True,
        layers=tuple(changed(layer.name, params, layer) for layer in integers),
        skipped=selection.skipped,
        facts={**_facts(model.proto, params, selection), "weight_scales": scale_facts(integers)},
    )


def plan(model: RuntimeModel, params: Quantize, around: Surroundings) -> PassPlan:
    """Say which layers would become int8."""
    selection = select(model, params, around.step)
    return PassPlan(
        op=params.op,
        layers_changed=len(selection.names),
        layers=tuple(changed(name, params) for name in selection.names),
        layers_skipped=selection.skipped,
        facts=_facts(model.proto, params, selection),
    )


def _quantized(proto: ModelProto, params: Quantize, products: list[Layer]) -> ModelProto:
    wanted = {layer.name for layer in products}
    nodes = [node.name for node in proto.graph.node if node.op_type in _PRODUCTS]
    with tempfile.TemporaryDirectory(prefix="planish-") as folder, exporter_silenced():
        out = Path(folder, "int8.onnx")
        quantize_dynamic(
            proto,
            out,
            op_types_to_quantize=_PRODUCTS,
            per_channel=params.granularity == "channel",
            weight_type=WEIGHTS[params.dtype],
            nodes_to_exclude=[name for name in nodes if name not in wanted],
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(out)


def _in_order(
    layers: tuple[Layer, ...], found: dict[str, QuantizedLayer]
) -> tuple[QuantizedLayer, ...]:
    return tuple(found[layer.name] for layer in layers if layer.name in found)


def _facts(proto: ModelProto, params: Quantize, selection: Chosen) -> dict[str, JsonValue]:
    layers = layers_of(proto)
    weighted = {layer.name for layer in layers}
    facts: dict[str, JsonValue] = {
        "mode": params.mode,
        "algorithm": "rtn",
        "weights": words(params),
        "activations": "uint8, per tensor, ranges found in each call",
        "float_products": sum(
            node.op_type == "MatMul" and node.name not in weighted for node in proto.graph.node
        ),
        "tool": "onnxruntime.quantization.quantize_dynamic",
    }
    if any(layer.kind == LOOKUP and layer.name in selection.names for layer in layers):
        facts["embeddings"] = "int8, symmetric, per row; looked up, not computed with"
    if params.dtype == "uint8":
        facts["note"] = _SLOW_DTYPE
    return facts

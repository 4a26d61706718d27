"""Quantize, mode weight_only, of an ONNX graph: fewer bytes; what is computed stays float."""

from __future__ import annotations

from dataclasses import replace

from pydantic import JsonValue

from planish.contract.recipe import Quantize
from planish.contract.report import LayerChanged, PassPlan
from worker.engine.model import Quantization, QuantizedLayer
from worker.engine.passes.protocol import Surroundings
from worker.engine.passes.quantize.facts import scale_facts
from worker.engine.runtime_model.layers import Layer
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.protocol import RuntimeOutcome
from worker.engine.runtime_model.quantize.integers import amount_after, float_layers
from worker.engine.runtime_model.quantize.select import select
from worker.engine.runtime_model.quantize.stored import store_weights
from worker.engine.runtime_model.tidy import recompact


def run(model: RuntimeModel, params: Quantize, around: Surroundings) -> RuntimeOutcome:
    """Store the weights of products, tables and convolutions in integers, rounded to nearest.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can be quantized.
    """
    selection = select(model, params, around.step)
    layers = float_layers(model.proto, selection.names)
    stored = store_weights(model.proto, layers, params)
    recompact(stored.proto)
    return RuntimeOutcome(
        model=replace(
            model,
            proto=stored.proto,
            amount=amount_after(model.proto, model.amount, layers, stored.zeros),
            quantization=Quantization(params, stored.layers),
        ),
        changed=True,
        layers=tuple(map(_changed, stored.layers)),
        skipped=selection.skipped,
        facts={**_facts(params, layers), "weight_scales": scale_facts(stored.layers)},
    )


def plan(model: RuntimeModel, params: Quantize, around: Surroundings) -> PassPlan:
    """Say which layers would be stored in integers."""
    selection = select(model, params, around.step)
    layers = float_layers(model.proto, selection.names)
    return PassPlan(
        op=params.op,
        layers_changed=len(layers),
        layers=tuple(
            LayerChanged(name=layer.name, what=f"float32 → {_planned(layer, params)}")
            for layer in layers
        ),
        layers_skipped=selection.skipped,
        facts=_facts(params, layers),
    )


def _planned(layer: Layer, params: Quantize) -> str:
    return params.dtype if layer.kind in ("MatMul", "Gemm") else "int8"


def _changed(layer: QuantizedLayer) -> LayerChanged:
    count = len(layer.scale)
    scales = f"scale {layer.scale[0]:.4g}" if count == 1 else f"{count} scales"
    return LayerChanged(name=layer.name, what=f"float32 → {layer.dtype}, {scales}")


def _facts(params: Quantize, layers: tuple[Layer, ...]) -> dict[str, JsonValue]:
    unit = f"group of {params.group_size}" if params.granularity == "group" else params.granularity
    kind = "asymmetric" if params.dtype == "int4" else "symmetric"
    kinds = {layer.kind for layer in layers}
    facts: dict[str, JsonValue] = {
        "mode": params.mode,
        "algorithm": "rtn",
        "weights": f"{params.dtype}, {kind}, per {unit}",
        "activations": "float32",
    }
    if "Gather" in kinds:
        facts["embeddings"] = "int8, symmetric, per row"
    if "Conv" in kinds:
        facts["convolutions"] = (
            "int8, symmetric, per output channel; computed in floats: smaller, not faster"
        )
    return facts

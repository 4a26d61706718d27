"""Dynamic int8: the graph stays float here, and the ONNX writer puts the integers in."""

from __future__ import annotations

from dataclasses import replace

from pydantic import JsonValue

from planish.contract.recipe import Quantize
from planish.contract.report import PassPlan
from worker.engine.model import Model, Quantization
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.quantize.facts import changed, scale_facts
from worker.engine.passes.quantize.quantizable import select_quantizable
from worker.engine.quantize.dynamic import dynamic_layers


def run(model: Model, params: Quantize, context: Context) -> Outcome:
    """Choose the matrix products that are computed in integers, with ranges found in each call.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can become int8.
    """
    selection = select_quantizable(model, params, context)
    layers = dynamic_layers(model, params, selection.chosen)
    kept = tuple(layer.name for layer in selection.skipped)
    return Outcome(
        model=replace(model, quantization=Quantization(params, layers, kept)),
        changed=True,
        layers=tuple(changed(layer.name, params, layer) for layer in layers),
        skipped=selection.skipped,
        facts={**_facts(params), "weight_scales": scale_facts(layers)},
    )


def plan(model: Model, params: Quantize, context: Context) -> PassPlan:
    """Say which layers would become int8."""
    selection = select_quantizable(model, params, context)
    return PassPlan(
        op=params.op,
        layers_changed=len(selection.chosen),
        layers=tuple(changed(name, params) for name in selection.chosen),
        layers_skipped=selection.skipped,
        facts=_facts(params),
    )


def _facts(params: Quantize) -> dict[str, JsonValue]:
    return {
        "mode": params.mode,
        "weights": f"int8, symmetric, per {params.granularity}",
        "activations": "uint8, per tensor, ranges found in each call",
    }

"""Dynamic int8: the graph stays float here, and the ONNX writer puts the integers in."""

from __future__ import annotations

from dataclasses import replace

from pydantic import JsonValue
from torch import nn

from planish.contract.recipe import Quantize
from planish.contract.report import PassPlan
from worker.engine.model import Model, Quantization
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.quantize import fp8
from worker.engine.passes.quantize.facts import changed, scale_facts
from worker.engine.passes.quantize.quantizable import select_quantizable
from worker.engine.passes.quantize.smoothing import even_out
from worker.engine.quantize.dynamic import computed_products, dynamic_layers
from worker.engine.quantize.weight_only import quantize_tables

_SLOW_DTYPE = (
    "ONNX Runtime's kernels for uint8 weights are no faster than float on CPUs of this kind; int8 "
    "weights are"
)


def run(model: Model, params: Quantize, context: Context) -> Outcome:
    """Choose the matrix products that are computed in integers, with ranges found in each call.

    Embeddings are stored in int8 and looked up as they are: they compute nothing, but weigh much.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can become int8.
    """
    if params.dtype == "fp8":
        return fp8.run(model, params, context)
    selection = select_quantizable(model, params, context)
    tables = _tables(model, selection.chosen)
    products = tuple(name for name in selection.chosen if name not in tables)
    facts = _facts(model, params, tables)
    smoothing = even_out(model, products, params, context)
    model, facts = smoothing.model, facts | smoothing.facts
    found = {layer.name: layer for layer in dynamic_layers(model, params, products)}
    found |= {layer.name: layer for layer in quantize_tables(model, params, tables)}
    layers = tuple(found[name] for name in selection.chosen)
    kept = tuple(layer.name for layer in selection.skipped)
    return Outcome(
        model=replace(model, quantization=Quantization(params, layers, kept)),
        changed=True,
        layers=tuple(changed(layer.name, params, layer) for layer in layers),
        skipped=selection.skipped,
        facts={**facts, "weight_scales": scale_facts(layers)},
    )


def plan(model: Model, params: Quantize, context: Context) -> PassPlan:
    """Say which layers would become int8."""
    if params.dtype == "fp8":
        return fp8.plan(model, params, context)
    selection = select_quantizable(model, params, context)
    return PassPlan(
        op=params.op,
        layers_changed=len(selection.chosen),
        layers=tuple(changed(name, params) for name in selection.chosen),
        layers_skipped=selection.skipped,
        facts=_facts(model, params, _tables(model, selection.chosen)),
    )


def _tables(model: Model, names: tuple[str, ...]) -> list[str]:
    return [n for n in names if isinstance(model.module.get_submodule(n), nn.Embedding)]


def _facts(model: Model, params: Quantize, tables: list[str]) -> dict[str, JsonValue]:
    kind = "symmetric" if params.dtype == "int8" else "asymmetric"
    facts: dict[str, JsonValue] = {
        "mode": params.mode,
        "weights": f"{params.dtype}, {kind}, per {params.granularity}",
        "activations": "uint8, per tensor, ranges found in each call",
        "float_products": computed_products(model.module),
    }
    if tables:
        facts["embeddings"] = "int8, symmetric, per row; looked up, not computed with"
    if params.dtype == "uint8":
        facts["note"] = _SLOW_DTYPE
    return facts

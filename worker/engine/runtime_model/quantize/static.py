"""Quantize, mode static, of an ONNX graph: ONNX Runtime's `quantize_static`, judged and rescued."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from planish.contract.recipe import Quantize
from planish.contract.report import LayerSkipped, PassPlan
from worker.engine.model import Quantization
from worker.engine.passes.protocol import Surroundings
from worker.engine.passes.quantize.calibration import data_facts, roles
from worker.engine.passes.quantize.facts import changed, scale_facts
from worker.engine.passes.quantize.rescue import Search
from worker.engine.quantize.treatment import named_treatment
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.protocol import RuntimeOutcome
from worker.engine.runtime_model.quantize.integers import (
    amount_after,
    float_layers,
    integers_of,
    words,
)
from worker.engine.runtime_model.quantize.select import select
from worker.engine.runtime_model.quantize.ways import RuntimeTreated, RuntimeWays
from worker.engine.runtime_model.tidy import recompact

_FREED = "integers harmed the output too much here: it went back to float"


def run(model: RuntimeModel, params: Quantize, around: Surroundings) -> RuntimeOutcome:
    """Put weights and activations into integers, with q/dq pairs around what computes in them.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can become integers, or `min_sqnr` is out of reach.
    """
    selection = select(model, params, around.step)
    parts = roles(model, params, around)
    facts = _facts(params) | data_facts(params, around, parts)
    freed: tuple[LayerSkipped, ...] = ()
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        ways = RuntimeWays(model, params, parts.ranges, parts.judging, around, Path(folder))
        if parts.judging is None:
            treated = ways.treat(named_treatment(params), selection.names)
        else:
            treated, freed, more = _searched(ways, params, selection.names)
            facts |= more
    layers = float_layers(model.proto, treated.layers)
    integers, zeros = integers_of(treated.proto, layers)
    recompact(treated.proto)
    return RuntimeOutcome(
        model=replace(
            model,
            proto=treated.proto,
            amount=amount_after(model.proto, model.amount, layers, zeros),
            quantization=Quantization(params, integers),
        ),
        changed=True,
        layers=tuple(changed(layer.name, params, layer) for layer in integers),
        skipped=selection.skipped + freed,
        facts={**facts, "weight_scales": scale_facts(integers)},
    )


def plan(model: RuntimeModel, params: Quantize, around: Surroundings) -> PassPlan:
    """Say which layers would become integers."""
    selection = select(model, params, around.step)
    return PassPlan(
        op=params.op,
        layers_changed=len(selection.names),
        layers=tuple(changed(name, params) for name in selection.names),
        layers_skipped=selection.skipped,
        facts=_facts(params) | data_facts(params, around, roles(model, params, around)),
    )


def _searched(
    ways: RuntimeWays, params: Quantize, names: tuple[str, ...]
) -> tuple[RuntimeTreated, tuple[LayerSkipped, ...], dict[str, JsonValue]]:
    """Climb the rescue ladder where the recipe allows it."""
    search = Search(params, names, ways)
    if params.algorithm == "auto":
        search.climb()
    if params.min_sqnr is not None:
        search.reach(params.min_sqnr)
    freed = tuple(LayerSkipped(name=name, why=_FREED) for name in search.freed())
    return search.best, freed, search.facts()


def _facts(params: Quantize) -> dict[str, JsonValue]:
    return {
        "mode": params.mode,
        "algorithm": params.algorithm,
        "weights": words(params),
        "activations": "uint8, per tensor",
        "tool": "onnxruntime.quantization.quantize_static",
    }

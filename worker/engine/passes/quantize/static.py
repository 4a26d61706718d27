"""Quantize, mode static: weights and activations in integers (Jacob et al. 2018, section 2)."""

from __future__ import annotations

from pydantic import JsonValue

from planish.contract.recipe import Quantize
from planish.contract.report import LayerSkipped, PassPlan
from worker.engine.model import Model
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.quantize.calibration import data_facts, roles
from worker.engine.passes.quantize.facts import changed, scale_facts, weight_words
from worker.engine.passes.quantize.quantizable import select_quantizable
from worker.engine.passes.quantize.rescue import Search
from worker.engine.passes.quantize.ways import GraphWays
from worker.engine.quantize.integers import check_integers
from worker.engine.quantize.quality import Judge
from worker.engine.quantize.static import convert
from worker.engine.quantize.treatment import Treated, named_treatment, treat

_FREED = "integers harmed the output too much here: it went back to float"


def run(model: Model, params: Quantize, context: Context) -> Outcome:
    """Quantize weights and activations: the returned graph computes on integers with q/dq pairs.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can become integers, or `min_sqnr` is out of reach.
    """
    selection = select_quantizable(model, params, context)
    parts = roles(model, params, context)
    facts = mode_facts(params) | data_facts(params, context, parts)
    freed: tuple[LayerSkipped, ...] = ()
    if parts.judging is None:
        treatment = named_treatment(params)
        treated = treat(model, params, selection.chosen, treatment, parts.ranges, context.seed)
    else:
        judge = Judge(model, parts.judging, classes=context.spec.data.task == "classification")
        ways = GraphWays(model, params, parts.ranges, judge, context)
        search = Search(params, selection.chosen, ways)
        if params.algorithm == "auto":
            search.climb()
        if params.min_sqnr is not None:
            search.reach(params.min_sqnr)
        treated = search.best
        facts |= search.facts()
        freed = tuple(LayerSkipped(name=name, why=_FREED) for name in search.freed())
    weights = treated.prepared.weights()
    quantized = convert(treated.model, params, treated.prepared)
    layers = quantized.quantization.layers if quantized.quantization else ()
    return Outcome(
        model=quantized,
        changed=True,
        layers=tuple(changed(layer.name, params, layer) for layer in layers),
        skipped=selection.skipped + freed,
        facts={
            **facts,
            **treatment_facts(treated),
            "integers": check_integers(weights, quantized).facts(),
            "weight_scales": scale_facts(layers),
        },
    )


def plan(model: Model, params: Quantize, context: Context) -> PassPlan:
    """Say which layers would become integers."""
    selection = select_quantizable(model, params, context)
    return PassPlan(
        op=params.op,
        layers_changed=len(selection.chosen),
        layers=tuple(changed(name, params) for name in selection.chosen),
        layers_skipped=selection.skipped,
        facts=mode_facts(params) | data_facts(params, context, roles(model, params, context)),
    )


def treatment_facts(treated: Treated) -> dict[str, JsonValue]:
    """Return what each method that was used has done."""
    facts: dict[str, JsonValue] = {}
    if treated.equalized:
        facts["equalized"] = [stream.words() for stream in treated.equalized]
    if treated.smoothed:
        facts["smoothed"] = [
            {
                "layers": list(item.layers),
                "into": item.into or "a multiplication of its own",
                "channel_range_before": round(item.range_before, 2),
                "channel_range_after": round(item.range_after, 2),
            }
            for item in treated.smoothed
        ]
    if treated.rounded:
        gain = [item.learned / item.nearest for item in treated.rounded if item.nearest]
        facts["adaround_error"] = {
            "layers": len(treated.rounded),
            "of_nearest_mean": round(sum(gain) / len(gain), 3) if gain else None,
        }
    if treated.biases:
        facts["biases_corrected"] = treated.biases
    return facts


def mode_facts(params: Quantize) -> dict[str, JsonValue]:
    """Return how weights and activations are stored."""
    return {
        "mode": params.mode,
        "algorithm": params.algorithm,
        "weights": weight_words(params),
        "activations": "uint8, per tensor",
    }

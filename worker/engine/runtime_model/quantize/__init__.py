"""Quantization of ONNX graphs: one file for each way of computing with fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from planish.contract.recipe import Quantize
from planish.contract.report import PassPlan
from worker.engine.passes.protocol import Surroundings
from worker.engine.runtime_model import simplify
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.protocol import RuntimeOutcome
from worker.engine.runtime_model.quantize import dynamic, static, weight_only

RUNS: Mapping[str, Callable[[RuntimeModel, Quantize, Surroundings], RuntimeOutcome]] = {
    "static": static.run,
    "dynamic": dynamic.run,
    "weight_only": weight_only.run,
}
PLANS: Mapping[str, Callable[[RuntimeModel, Quantize, Surroundings], PassPlan]] = {
    "static": static.plan,
    "dynamic": dynamic.plan,
    "weight_only": weight_only.plan,
}


def run(model: RuntimeModel, params: Quantize, around: Surroundings) -> RuntimeOutcome:
    """Quantize a float graph, after simplifying it.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can be quantized.
    """
    return RUNS[params.mode](simplify.folded(model), params, around)


def plan(
    model: RuntimeModel, params: Quantize, around: Surroundings
) -> tuple[RuntimeModel, PassPlan]:
    """Return the simplified graph, and which layers would be quantized."""
    model = simplify.folded(model)
    return model, PLANS[params.mode](model, params, around)

"""Quantization: one file for each way of computing with fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from planish.contract.recipe import Quantize
from planish.contract.report import PassPlan
from worker.engine.model import Model
from worker.engine.passes import simplify
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.quantize import dynamic, qat, static, weight_only

RUNS: Mapping[str, Callable[[Model, Quantize, Context], Outcome]] = {
    "static": static.run,
    "qat": qat.run,
    "dynamic": dynamic.run,
    "weight_only": weight_only.run,
}
PLANS: Mapping[str, Callable[[Model, Quantize, Context], PassPlan]] = {
    "static": static.plan,
    "qat": qat.plan,
    "dynamic": dynamic.plan,
    "weight_only": weight_only.plan,
}
"""What does and plans the work, by `Quantize.mode`, on a model whose BatchNorms are folded."""


def run(model: Model, params: Quantize, context: Context) -> Outcome:
    """Quantize a float model, after folding its BatchNorm layers.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can be quantized.
    """
    model = simplify.run(model, simplify.FOLD, context).model
    return RUNS[params.mode](model, params, context)


def plan(model: Model, params: Quantize, context: Context) -> tuple[Model, PassPlan]:
    """Return a copy with its BatchNorm layers folded, and which layers would be quantized."""
    model, _ = simplify.plan(model, simplify.FOLD, context)
    return model, PLANS[params.mode](model, params, context)

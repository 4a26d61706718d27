"""How much of an activation's outliers moves into the weights behind it, for dynamic int8."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import JsonValue

from planish.contract.recipe import Quantize
from worker.engine.model import Model, first_output
from worker.engine.passes.protocol import Context
from worker.engine.quantize.dynamic import simulated_sqnr
from worker.engine.quantize.smoothquant import smooth

STRENGTHS = (0.5, 0.6, 0.7, 0.8)
GOOD = 20.0  # dB; as in static mode
_JUDGING = 64
_BATCH = 16


@dataclass(frozen=True)
class Smoothing:
    """A model whose products read inputs of even ranges, and what tells so."""

    model: Model
    facts: dict[str, JsonValue]


def even_out(
    model: Model, products: tuple[str, ...], params: Quantize, context: Context
) -> Smoothing:
    """Smooth what the products read, by the strength that measures best on calibration samples.

    `auto` does so only where rounding alone leaves less than `GOOD`. Where no strength is better
    than none, or no data came along, the model is returned as it is.

    Source: Xiao et al. 2022, arXiv:2211.10438, sections 4 and 5.4 (the strength is a matter of the
    model: 0.5 for most, more where activations are wild).
    """
    if params.algorithm not in ("auto", "smoothquant") or context.splits is None or not products:
        return Smoothing(model, {})
    data = context.splits.calibration
    samples = data.head(params.samples)
    batches = [inputs for inputs, _ in data.head(_JUDGING).batches(_BATCH)]
    with torch.no_grad():
        wanted = [first_output(model.module(*inputs)) for inputs in batches]
    plain = simulated_sqnr(model, products, params, batches, wanted)
    facts: dict[str, JsonValue] = {"sqnr_db": round(plain, 1)}
    if params.algorithm == "auto" and plain >= GOOD:
        return Smoothing(model, facts)
    tried: dict[str, JsonValue] = {"0": round(plain, 1)}
    best, chosen = plain, None
    for index, strength in enumerate(STRENGTHS):
        context.progress.update(index / len(STRENGTHS), f"smoothing by {strength:g}")
        smoothed, done = smooth(model, products, samples, strength)
        sqnr = simulated_sqnr(smoothed, products, params, batches, wanted)
        tried[f"{strength:g}"] = round(sqnr, 1)
        if sqnr > best:
            best, chosen = sqnr, (smoothed, done)
    facts |= {"sqnr_db": round(best, 1), "sqnr_db_by_strength": tried}
    if chosen is None:
        return Smoothing(model, facts)
    facts["smoothed"] = {
        ", ".join(item.layers): [round(item.range_before, 2), round(item.range_after, 2)]
        for item in chosen[1]
    }
    return Smoothing(chosen[0], facts)

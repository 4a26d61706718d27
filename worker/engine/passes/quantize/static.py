"""Quantize: int8 weights, and for static mode int8 activations (Jacob et al. 2018, section 2)."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import JsonValue
from torch import Tensor

from planish.contract.recipe import Quantize
from planish.contract.report import PassPlan
from worker.engine.load.data import Dataset, synthetic
from worker.engine.model import Model
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.quantize.facts import changed, scale_facts
from worker.engine.passes.quantize.quantizable import select_quantizable
from worker.engine.quantize.static import quantize_static

_BATCH = 32
_NOISE_WARNING = (
    "no data came along: activation ranges were calibrated on synthetic noise and may not fit real "
    "inputs; send data for a trustworthy int8 model"
)


def run(model: Model, params: Quantize, context: Context) -> Outcome:
    """Quantize weights and activations: the returned graph computes on int8 with q/dq pairs.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can become int8.
    """
    selection = select_quantizable(model, params, context)
    samples = _calibration(model, params, context)
    facts = _facts(params) | _calibration_facts(params, context, len(samples))
    quantized = quantize_static(model, params, selection.chosen, _observed(samples, context))
    layers = quantized.quantization.layers if quantized.quantization else ()
    return Outcome(
        model=quantized,
        changed=True,
        layers=tuple(changed(layer.name, params, layer) for layer in layers),
        skipped=selection.skipped,
        facts={**facts, "weight_scales": scale_facts(layers)},
    )


def plan(model: Model, params: Quantize, context: Context) -> PassPlan:
    """Say which layers would become int8."""
    selection = select_quantizable(model, params, context)
    samples = params.samples
    if context.splits is not None:
        samples = min(samples, len(context.splits.calibration))
    return PassPlan(
        op=params.op,
        layers_changed=len(selection.chosen),
        layers=tuple(changed(name, params) for name in selection.chosen),
        layers_skipped=selection.skipped,
        facts=_facts(params) | _calibration_facts(params, context, samples),
    )


def _calibration(model: Model, params: Quantize, context: Context) -> Dataset:
    if context.splits is None:
        return synthetic(model, params.samples, context.seed)
    return context.splits.calibration.head(params.samples)


def _observed(samples: Dataset, context: Context) -> Iterator[tuple[Tensor, ...]]:
    total = len(samples)
    for index, (inputs, _) in enumerate(samples.batches(_BATCH)):
        done = index * _BATCH
        context.progress.update(done / total, f"calibrating {done}/{total}")
        yield inputs


def _facts(params: Quantize) -> dict[str, JsonValue]:
    return {
        "mode": params.mode,
        "weights": f"int8, symmetric, per {params.granularity}",
        "activations": "uint8, per tensor",
    }


def _calibration_facts(params: Quantize, context: Context, samples: int) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = {"calibration": params.calibration, "samples": samples}
    if context.splits is None:
        facts["warning"] = _NOISE_WARNING
    elif samples < params.samples:
        facts["note"] = (
            f"the data has {samples} samples to calibrate on, {params.samples} asked for"
        )
    return facts

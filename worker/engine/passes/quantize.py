"""Quantize: int8 weights, and for static mode int8 activations (Jacob et al. 2018, section 2)."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace

from pydantic import JsonValue
from torch import Tensor

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Quantize, Simplify
from planish.contract.report import LayerChanged, LayerSkipped, PassPlan
from worker.engine.load.data import Dataset, synthetic
from worker.engine.model import Model, Quantization, QuantizedLayer
from worker.engine.passes import simplify
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.quantizable import Selection, select_layers
from worker.engine.quantize.dynamic import dynamic_layers
from worker.engine.quantize.static import quantize_static

_BATCH = 32
_NOISE_WARNING = (
    "no data came along: activation ranges were calibrated on synthetic noise and may not fit real "
    "inputs; send data for a trustworthy int8 model"
)


def run(model: Model, params: Quantize, context: Context) -> Outcome:
    """Quantize a float model, after folding its BatchNorm layers.

    Static: the returned graph computes on int8 weights with q/dq pairs. Dynamic: the graph stays
    float and the ONNX writer puts the integers in.

    Raises:
        InvalidRecipe: a `keep_float` pattern matches no layer.
        NothingChanged: no layer can become int8.
    """
    model = simplify.run(model, Simplify(), context).model
    selection = _selection(model, params, context)
    facts = _facts(params)
    if params.mode == "dynamic":
        quantized = _dynamic(model, params, selection)
    else:
        samples = _calibration(model, params, context)
        facts |= _calibration_facts(params, context, len(samples))
        quantized = quantize_static(model, params, selection.chosen, _observed(samples, context))
    layers = quantized.quantization.layers if quantized.quantization else ()
    facts["weight_scales"] = _scale_facts(layers)
    return Outcome(
        model=quantized,
        changed=True,
        layers=tuple(_changed(layer.name, params, layer) for layer in layers),
        skipped=selection.skipped,
        facts=facts,
    )


def plan(model: Model, params: Quantize, context: Context) -> tuple[Model, PassPlan]:
    """Return a copy with its BatchNorm layers folded, and which layers would become int8."""
    model, _ = simplify.plan(model, Simplify(), context)
    selection = _selection(model, params, context)
    facts = _facts(params)
    if params.mode == "static":
        samples = params.samples
        if context.splits is not None:
            samples = min(samples, len(context.splits.calibration))
        facts |= _calibration_facts(params, context, samples)
    return model, PassPlan(
        op=params.op,
        layers_changed=len(selection.chosen),
        layers=tuple(_changed(name, params) for name in selection.chosen),
        layers_skipped=selection.skipped,
        facts=facts,
    )


def _selection(model: Model, params: Quantize, context: Context) -> Selection:
    selection = select_layers(model.module, params, context.step)
    if not selection.chosen:
        raise NothingChanged(_nothing(params, selection.skipped))
    return selection


def _nothing(params: Quantize, skipped: tuple[LayerSkipped, ...]) -> str:
    if params.mode == "dynamic" and any("dynamic int8" in layer.why for layer in skipped):
        return (
            "dynamic int8 covers matrix products only and this model has none; "
            'set mode to "static" to quantize its convolutions'
        )
    reasons = "; ".join(f"{layer.name}: {layer.why}" for layer in skipped[:5])
    return f"no layer can become int8 ({reasons or 'the model has no layers with weights'})"


def _dynamic(model: Model, params: Quantize, selection: Selection) -> Model:
    layers = dynamic_layers(model, params, selection.chosen)
    kept = tuple(layer.name for layer in selection.skipped)
    return replace(model, quantization=Quantization(params, layers, kept))


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
        "activations": "uint8, per tensor"
        if params.mode == "static"
        else "uint8, per tensor, ranges found in each call",
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


def _scale_facts(layers: tuple[QuantizedLayer, ...]) -> dict[str, JsonValue]:
    """Return scale and zero point of each layer: one value, or the range over its channels."""
    return {
        layer.name: {
            "scale_min": min(layer.scale),
            "scale_median": statistics.median(layer.scale),
            "scale_max": max(layer.scale),
            "zero_point": layer.zero_point[0],
            "channels": len(layer.scale),
        }
        for layer in layers
    }


def _changed(name: str, params: Quantize, layer: QuantizedLayer | None = None) -> LayerChanged:
    what = "float32 → int8"
    if layer is not None and params.granularity == "channel":
        what += f", {len(layer.scale)} scales"
    elif layer is not None:
        what += f", scale {layer.scale[0]:.4g}"
    return LayerChanged(name=name, what=what)

"""What every quantized model is reported with, whatever its mode."""

from __future__ import annotations

import statistics

from pydantic import JsonValue

from planish.contract.recipe import Quantize
from planish.contract.report import LayerChanged
from worker.engine.model import QuantizedLayer


def scale_facts(layers: tuple[QuantizedLayer, ...]) -> dict[str, JsonValue]:
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


def changed(name: str, params: Quantize, layer: QuantizedLayer | None = None) -> LayerChanged:
    """Say in words what became of a layer; without `layer`, what would."""
    what = f"float32 → {layer.dtype if layer is not None else params.dtype}"
    if layer is not None and len(layer.scale) > 1:
        what += f", {len(layer.scale)} scales"
    elif layer is not None:
        what += f", scale {layer.scale[0]:.4g}"
    return LayerChanged(name=name, what=what)


def weight_words(params: Quantize) -> str:
    """Say how weights are stored, for static and qat."""
    asymmetric = params.dtype == "uint8" and params.granularity == "tensor"
    return f"{params.dtype}, {'a' * asymmetric}symmetric, per {params.granularity}"

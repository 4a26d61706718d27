"""The table of weighted layers, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planish.contract.report import Layer
from worker.engine.model import AnyModel, Model, QuantizedLayer
from worker.engine.passes.layers import weighted_layers


@dataclass(frozen=True)
class LayerSize:
    """How large one layer is: `params` counts weight and bias, `shape` is the weight's."""

    kind: str
    params: int
    shape: tuple[int, ...]
    dtype: str


def layer_sizes(model: Model) -> dict[str, LayerSize]:
    """Return the sizes of the weighted layers of a float model, in graph order."""
    return {
        name: LayerSize(
            kind=type(layer).__name__,
            params=sum(parameter.numel() for parameter in layer.parameters()),
            shape=tuple(layer.get_parameter("weight").shape),
            dtype=str(layer.get_parameter("weight").dtype).removeprefix("torch."),
        )
        for name, layer in weighted_layers(model.module).items()
    }


def layer_table(
    before: Mapping[str, LayerSize], after: Mapping[str, LayerSize], model: AnyModel
) -> tuple[Layer, ...]:
    """Return one row for each layer of the network that the recipe began with.

    Args:
        before: its layers: the model's, or the student's.
        after: the optimized model's layers before quantization.
        model: the optimized model; its integers give type, scale and zero point.
    """
    integers = {layer.name: layer for layer in _integers(model)}
    return tuple(
        _row(name, size, after.get(name), integers.get(name)) for name, size in before.items()
    )


def float_by_mistake(model: AnyModel, float_layers: Sequence[str]) -> tuple[str, ...]:
    """Return the quantized layers that the runtime computes in floats all the same.

    Args:
        model: the optimized model.
        float_layers: names in the runtime's graph; a layer called twice has a suffix ``:2``.
    """
    if model.quantization is not None and model.quantization.params.mode == "weight_only":
        return ()  # by intent
    quantized = {layer.name for layer in _integers(model)}
    found = (name.partition(":")[0] for name in float_layers)
    return tuple(dict.fromkeys(name for name in found if name in quantized))


def _integers(model: AnyModel) -> tuple[QuantizedLayer, ...]:
    return () if model.quantization is None else model.quantization.layers


def _row(
    name: str, before: LayerSize, after: LayerSize | None, integers: QuantizedLayer | None
) -> Layer:
    return Layer(
        name=name,
        kind=before.kind,
        params_before=before.params,
        params_after=after and after.params,
        shape_before=_shape(before),
        shape_after=after and _shape(after),
        dtype_after=integers.dtype if integers else after and after.dtype,
        # One figure for the table: the largest scale bounds the rounding error of the layer.
        weight_scale=max(integers.scale) if integers else None,
        weight_zero_point=_common(integers.zero_point) if integers else None,
    )


def _common(values: tuple[int, ...]) -> int | None:
    return values[0] if values and len(set(values)) == 1 else None


def _shape(size: LayerSize) -> str:
    return "×".join(map(str, size.shape))

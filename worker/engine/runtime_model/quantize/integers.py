"""The integers that ONNX Runtime's quantizers wrote, read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto, TensorProto

from planish.contract.recipe import Quantize
from worker.engine.measure.size import ParameterCount
from worker.engine.model import QuantizedLayer
from worker.engine.report.build import Amount
from worker.engine.runtime_model.layers import Layer, layers_of, values_of

_END = "_quantized"
_TYPES = {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8"}


def integers_of(
    proto: ModelProto, layers: Sequence[Layer]
) -> tuple[tuple[QuantizedLayer, ...], int]:
    """Return the integers of some layers, and how many of them stand for zero.

    Args:
        proto: as the quantizer wrote it: ``name_quantized``, ``name_scale``, ``name_zero_point``.
        layers: of the float graph; one whose weight was left in float is left out.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    found, zeros, seen = [], 0, set[str]()
    for layer in layers:
        base = _stored_as(layer.weight, constants)
        if base is None:
            continue
        stored = constants[f"{base}{_END}"]
        scale = values_of(constants[f"{base}_scale"]).reshape(-1)
        point = values_of(constants[f"{base}_zero_point"]).reshape(-1)
        found.append(
            QuantizedLayer(
                name=layer.name,
                dtype=_TYPES[stored.data_type],
                scale=tuple(float(value) for value in scale),
                zero_point=tuple(int(value) for value in point),
            )
        )
        if layer.weight not in seen:
            zeros += _zeros(values_of(stored), point)
        seen.add(layer.weight)
    return tuple(found), zeros


def _stored_as(weight: str, constants: Mapping[str, TensorProto]) -> str | None:
    """Return the name that a weight has now: a Gemm's may have been transposed to a MatMul's."""
    if f"{weight}{_END}" in constants:
        return weight
    longer = (name for name in constants if name.startswith(weight) and name.endswith(_END))
    return next((name.removesuffix(_END) for name in longer if "ransposed" in name), None)


def _zeros(values: np.ndarray, point: np.ndarray) -> int:
    if point.size == 1:
        return int((values == point[0]).sum())
    axis = next(i for i, size in enumerate(values.shape) if size == point.size)
    sizes = [point.size if i == axis else 1 for i in range(values.ndim)]
    return int((values == point.reshape(sizes)).sum())


def float_layers(proto: ModelProto, names: Sequence[str]) -> tuple[Layer, ...]:
    """Return some layers of a float graph."""
    wanted = set(names)
    return tuple(layer for layer in layers_of(proto) if layer.name in wanted)


def amount_after(proto: ModelProto, amount: Amount, layers: Sequence[Layer], zeros: int) -> Amount:
    """Return the amount of a quantized model: as many weights, some of them rounded to zero.

    Args:
        proto: the float graph.
        amount: of it.
        layers: of the float graph that became integers.
        zeros: among their integers.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    weights = [values_of(constants[name]) for name in {layer.weight for layer in layers}]
    before = sum(int(weight.size - np.count_nonzero(weight)) for weight in weights)
    nonzero = amount.parameters.nonzero - (zeros - before)
    return replace(amount, parameters=ParameterCount(amount.parameters.total, nonzero))


def words(params: Quantize) -> str:
    """Say how weights are stored."""
    kind = "symmetric" if params.dtype == "int8" else "asymmetric"
    return f"{params.dtype}, {kind}, per {params.granularity}"

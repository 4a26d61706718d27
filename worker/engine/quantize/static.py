"""Static int8: observe on samples, convert, return to canonical form."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

from planish.contract.recipe import Quantize
from worker.engine.model import Model, Quantization, QuantizedLayer
from worker.engine.quantize.nodes import argument, attribute, constant, source
from worker.engine.quantize.prepared import (
    Batches,
    Prepared,
    observe,
    prepare,
    show_batchnorms,
)
from worker.engine.save.program import quiet

_PARTS = ("", "_scale", "_zero_point")


def quantize_static(
    model: Model, params: Quantize, layers: tuple[str, ...], batches: Batches
) -> Model:
    """Return the model with int8 weights and q/dq pairs around what the target computes in int8.

    Args:
        model: float, in canonical form.
        params: dtype, granularity and calibration.
        layers: names of the convolutions and linear layers to quantize.
        batches: calibration samples, model-ready.
    """
    prepared = prepare(model, params, layers)
    observe(prepared, batches)
    return convert(model, params, prepared)


def convert(model: Model, params: Quantize, prepared: Prepared) -> Model:
    """Return the prepared graph with integers for weights; `prepared` is used up.

    The new graph holds ATen and ``quantized_decomposed`` calls; a layer keeps ``.weight`` (int8 or
    uint8), ``.weight_scale`` and ``.weight_zero_point``.

    Args:
        model: the float model that was prepared.
        params: the pass.
        prepared: its pairs are settled.
    """
    names = prepared.names
    with quiet(), torch.no_grad():
        converted = convert_pt2e(prepared.graph)
        show_batchnorms(converted)
    layers = _integers(converted, names, params.dtype)
    return Model(
        module=_canonical(converted, _constant_names(converted, names)),
        inputs=model.inputs,
        quantization=Quantization(params=params, layers=layers),
    )


def _calls(graph: fx.GraphModule, names: Mapping[str, str]) -> list[tuple[str, fx.Node]]:
    return [(names[node.name], node) for node in graph.graph.nodes if node.name in names]


def _integers(
    graph: fx.GraphModule, names: Mapping[str, str], dtype: str
) -> tuple[QuantizedLayer, ...]:
    """Read scales and zero points of all weights; a layer that is called twice counts once."""
    layers: dict[str, QuantizedLayer] = {}
    for layer, node in _calls(graph, names):
        dequantize = source(node, 1)
        layers[layer] = QuantizedLayer(
            name=layer,
            dtype=dtype,
            scale=tuple(float(value) for value in _numbers(graph, dequantize, 1)),
            zero_point=tuple(int(value) for value in _numbers(graph, dequantize, 2)),
        )
    return tuple(layers.values())


def _numbers(graph: fx.GraphModule, node: fx.Node, index: int) -> list[float]:
    """Return a constant argument: a tensor's values, or the one number written into the call."""
    tensor = constant(graph, argument(node, index))
    if tensor is not None:
        return [float(value) for value in tensor.flatten().tolist()]
    number = node.args[index]
    if not isinstance(number, int | float):
        raise TypeError(f"argument {index} of {node.name} is not constant")
    return [number]


def _constant_names(graph: fx.GraphModule, names: Mapping[str, str]) -> dict[str, str]:
    """Return new names for torchao's numbered constants: those of their layers."""
    renamed: dict[str, str] = {}
    for layer, node in _calls(graph, names):
        slots = {**_slots("weight", argument(node, 1)), **_slots("bias", argument(node, 2))}
        for slot, value in slots.items():
            if value.op == "get_attr":
                renamed.setdefault(str(value.target), f"{layer}.{slot}")
    return renamed


def _slots(kind: str, value: fx.Node | None) -> dict[str, fx.Node]:
    """Return the constants behind a weight or bias, through its dequantize call if it has one."""
    if value is None or value.op == "get_attr":
        return {} if value is None else {kind: value}
    nodes = {f"{kind}{end}": argument(value, i) for i, end in enumerate(_PARTS)}
    return {slot: node for slot, node in nodes.items() if node is not None}


def _canonical(graph: fx.GraphModule, renamed: Mapping[str, str]) -> fx.GraphModule:
    """Return a plain GraphModule: flat inputs, outputs in their containers, only what is in use.

    `convert_pt2e` leaves the float weights registered; a graph rebuilt from what its nodes name
    holds them no longer.
    """
    attributes: dict[str, object] = {}
    for node in graph.graph.nodes:
        if node.op in ("get_attr", "call_module"):
            value = attribute(graph, str(node.target))
            node.target = renamed.get(str(node.target), str(node.target))
            attributes[node.target] = value
    module = fx.GraphModule(attributes, graph.graph, class_name="GraphModule")
    module.graph.lint()
    return module.requires_grad_(False).eval()

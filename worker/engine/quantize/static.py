"""Static int8: export, observe on samples, convert, return to canonical form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree
from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from planish.contract.recipe import Quantize
from worker.engine.model import Model, Quantization, QuantizedLayer
from worker.engine.quantize.nodes import argument, attribute, constant, source
from worker.engine.quantize.placement import CONVOLUTIONS, LINEARS, RuntimeQuantizer
from worker.engine.save.program import export_program, quiet

aten = torch.ops.aten

# int32 biases have the scale (input scale * weight scale); this leaves one bit of headroom.
_BIAS_LIMIT = 2.0**30
_IDENTITIES = {aten.dropout.default, aten.dropout_.default}
_PARTS = ("", "_scale", "_zero_point")

Batches = Iterable[tuple[Tensor, ...]]


def quantize_static(
    model: Model, params: Quantize, layers: tuple[str, ...], batches: Batches
) -> Model:
    """Return the model with int8 weights and q/dq pairs around what the target computes in int8.

    The new graph holds ATen and ``quantized_decomposed``
    calls; a layer keeps ``.weight`` (int8), ``.weight_scale`` and ``.weight_zero_point``.

    Args:
        model: float, in canonical form.
        params: granularity and calibration.
        layers: names of the convolutions and linear layers to quantize.
        batches: calibration samples, model-ready.
    """
    with quiet(), torch.no_grad():
        graph = _functional(export_program(model)).module(check_guards=False)
        _drop_identities(graph)
        _shield_batchnorms(graph)
        names = _layer_calls(graph, layers)
        prepared = prepare_pt2e(graph, RuntimeQuantizer(params, {f"{n}.weight" for n in layers}))
        for batch in batches:
            prepared(*batch)
        _fit_biases(prepared, names)
        converted = convert_pt2e(prepared)
    quantized = _integers(converted, names)
    return Model(
        module=_canonical(converted, _constant_names(converted, names)),
        inputs=model.inputs,
        quantization=Quantization(params=params, layers=quantized),
    )


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Turn in-place writes into values: a q/dq pair hands on a copy, whose writes are lost."""
    schemas = (getattr(node.target, "_schema", None) for node in program.graph.nodes)
    if any(schema is not None and schema.is_mutable for schema in schemas):
        program = program.run_decompositions({})
    return program


def _drop_identities(graph: fx.GraphModule) -> None:
    """Remove dropout: idle in eval mode, it would part a layer from its activation."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in _IDENTITIES:
            node.replace_all_uses_with(source(node, 0))
            graph.graph.erase_node(node)
    graph.recompile()


def _shield_batchnorms(graph: fx.GraphModule) -> None:
    """Keep torchao from folding what is left of BatchNorm layers.

    Those that can be folded are folded already. torchao would fold into a layer that is called
    twice as well, and change the other call's weights with it.
    """
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and "batch_norm" in str(node.target):
            value = source(node, 0)
            with graph.graph.inserting_before(node):
                alias = graph.graph.call_function(aten.alias.default, (value,))
            alias.meta = dict(value.meta)
            node.replace_input_with(value, alias)
    graph.recompile()


def _layer_calls(graph: fx.GraphModule, layers: tuple[str, ...]) -> dict[str, str]:
    """Return layer names by the names of the nodes that compute them."""
    weights = {f"{name}.weight": name for name in layers}
    calls = [node for node in graph.graph.nodes if node.target in CONVOLUTIONS | LINEARS]
    targets = {node.name: str(source(node, 1).target) for node in calls}
    return {name: weights[target] for name, target in targets.items() if target in weights}


def _calls(graph: fx.GraphModule, names: Mapping[str, str]) -> list[tuple[str, fx.Node]]:
    return [(names[node.name], node) for node in graph.graph.nodes if node.name in names]


def _fit_biases(prepared: fx.GraphModule, names: Mapping[str, str]) -> None:
    """Widen weight ranges where a bias would overflow int32: dead channels have next to no range.

    The runtime stores a bias as ``round(bias / (input scale * weight scale))``; without this, a
    channel whose weights are (almost) zero would wrap around silently.
    """
    for _, node in _calls(prepared, names):
        bias = _bias(prepared, node)
        if bias is None:
            continue
        activation, weight = _observer(prepared, node, 0), _observer(prepared, node, 1)
        input_scale, _ = activation.calculate_qparams()
        least = bias.abs() / (input_scale * _BIAS_LIMIT) * weight.quant_max
        if weight.max_val.numel() == 1:
            least = least.max()
        weight.max_val.copy_(torch.maximum(weight.max_val, least))


def _observer(
    prepared: fx.GraphModule, node: fx.Node, index: int
) -> UniformQuantizationObserverBase:
    observer = prepared.get_submodule(str(source(node, index).target))
    if not isinstance(observer, UniformQuantizationObserverBase):
        raise TypeError(f"argument {index} of {node.name} is not observed")
    return observer


def _bias(prepared: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """Return the float bias of a layer's call, through its observer if it has one."""
    bias = argument(node, 2)
    if bias is not None and bias.op == "call_module":
        bias = source(bias, 0)
    return constant(prepared, bias)


def _integers(graph: fx.GraphModule, names: Mapping[str, str]) -> tuple[QuantizedLayer, ...]:
    """Read scales and zero points of all weights; a layer that is called twice counts once."""
    layers: dict[str, QuantizedLayer] = {}
    for layer, node in _calls(graph, names):
        dequantize = source(node, 1)
        layers[layer] = QuantizedLayer(
            name=layer,
            dtype="int8",
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
    _plain_calling(graph.graph)
    module = fx.GraphModule(attributes, graph.graph, class_name="GraphModule")
    module.graph.lint()
    return module.requires_grad_(False).eval()


def _plain_calling(graph: fx.Graph) -> None:
    """Replace the exported calling convention by positional tensors in and containers out."""
    codegen = graph._codegen
    if not isinstance(codegen, fx.graph._PyTreeCodeGen) or codegen.pytree_info.out_spec is None:
        raise TypeError("an exported graph is called through a pytree")
    output = graph.output_node()
    (values,) = output.args
    if not isinstance(values, list | tuple):
        raise TypeError("an exported graph returns its outputs in a flat list")
    output.args = (pytree.tree_unflatten(list(values), codegen.pytree_info.out_spec),)
    graph.set_codegen(fx.graph.CodeGen())

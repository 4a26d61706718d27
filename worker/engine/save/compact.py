"""Make an ONNX file say what it computes and nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_SCOPES = "pkg.torch.onnx.name_scopes"
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulNBits", "Gather"}
_UNSHARED = {"DequantizeLinear", "Transpose"}
_CARRIERS = {"DequantizeLinear", "Transpose", "Reshape", "Identity"}


def compact(proto: ModelProto) -> None:
    """Name weighted nodes, unshare dequantizers, merge constants, strip metadata; in place.

    The exporter writes stack traces with file paths into every node; runtimes infer shapes by
    themselves, so the recorded ones are weight without use.
    """
    graph = proto.graph
    _name_layers(graph)
    _unshare_weights(graph)
    _merge_constants(graph)
    _strip(proto)


def rename_dimensions(proto: ModelProto, names: Mapping[str, str]) -> None:
    """Give dynamic dimensions the names of the model's inputs: ``s77`` becomes ``batch``."""
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def input_symbols(proto: ModelProto) -> dict[str, list[str]]:
    """Return the dynamic dimension symbols of each input, '' where a size is fixed."""
    return {
        value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in proto.graph.input
    }


def layer_of_weight(name: str) -> str:
    """Return the layer of a weight: ``layer1.0.conv1.weight`` → ``layer1.0.conv1``."""
    return name.rpartition(".")[0] or name


def _name_layers(graph: GraphProto) -> None:
    """Rename Conv, Gemm, MatMul and Gather nodes to their layer, so that reports can name them."""
    constants = {tensor.name for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    taken: set[str] = set()
    for node in graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        layer = _weight_layer(node, constants, producers) or _scope(node)
        if layer is not None:
            node.name = layer if layer not in taken else f"{layer}:{len(taken)}"
            taken.add(node.name)


def _scope(node: NodeProto) -> str | None:
    """Return the module path that the exporter noted (its folded weights lose their names)."""
    text = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), None)
    scopes = ast.literal_eval(text) if text is not None else []
    return scopes[-2] if len(scopes) > 1 and scopes[-2] else None


def _weight_layer(
    node: NodeProto, constants: set[str], producers: Mapping[str, NodeProto]
) -> str | None:
    for name in node.input[1:2] if node.op_type != "Gather" else node.input[:1]:
        while name in producers and producers[name].op_type in _CARRIERS:
            name = producers[name].input[0]
        if name in constants and name.endswith(".weight"):
            return layer_of_weight(name)
    return None


def _unshare_weights(graph: GraphProto) -> None:
    """Give each user of a dequantized weight its own DequantizeLinear and Transpose.

    The runtime fuses a dequantizer into its only user; a layer that is called twice would stay
    float. The integers themselves stay shared.
    """
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in _UNSHARED and node.input[0] in fixed:
            fixed.add(node.output[0])
    for node in reversed(list(graph.node)):
        if node.op_type not in _UNSHARED or node.output[0] not in fixed:
            continue
        users = [user for user in graph.node if node.output[0] in user.input]
        for index, user in enumerate(users[1:], 1):
            _insert_copy(graph, node, user, f"{node.output[0]}:{index}")


def _insert_copy(graph: GraphProto, node: NodeProto, user: NodeProto, output: str) -> None:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name, copy.output[0] = f"{node.name}:{output}", output
    for index, name in enumerate(user.input):
        if name == node.output[0]:
            user.input[index] = output
    graph.node.insert(list(graph.node).index(node), copy)


def _merge_constants(graph: GraphProto) -> None:
    """Keep one of several equal constants: q/dq pairs repeat scales and zero points."""
    kept: dict[tuple[object, ...], str] = {}
    renamed: dict[str, str] = {}
    outputs = {value.name for value in graph.output}
    for tensor in list(graph.initializer):
        key = (tensor.data_type, tuple(tensor.dims), _payload(tensor))
        first = kept.setdefault(key, tensor.name)
        if first != tensor.name and tensor.name not in outputs:
            renamed[tensor.name] = first
            graph.initializer.remove(tensor)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in renamed:
                node.input[index] = renamed[name]


def _payload(tensor: TensorProto) -> bytes:
    bare = TensorProto()
    bare.CopyFrom(tensor)
    bare.ClearField("name")
    bare.ClearField("doc_string")
    del bare.metadata_props[:]
    return bytes(bare.SerializeToString(deterministic=True))


def _strip(proto: ModelProto) -> None:
    del proto.metadata_props[:]
    proto.doc_string = ""
    for graph in _graphs(proto):
        del graph.metadata_props[:]
        del graph.value_info[:]
        del graph.quantization_annotation[:]
        graph.doc_string = ""
        for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
            del item.metadata_props[:]
            item.doc_string = ""


def _graphs(proto: ModelProto) -> Iterator[GraphProto]:
    waiting = [proto.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)

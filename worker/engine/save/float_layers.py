"""Layers that were left in float stay in float when ONNX Runtime loads the file.

Where a float convolution or Gemm stands between a dequantizer and a quantizer, the runtime rounds
its weight to int8 by itself, with one scale for the tensor, and computes in integers: the very
thing that the layer was kept from. It does so only for inputs with one scale; a dequantizer with
the same scale once for each channel computes the same and is left alone. Source: ONNX Runtime,
core/optimizer/qdq_transformer/weight_bias_quantization.cc.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

_ROUNDED = ("Conv", "ConvTranspose", "Gemm")
_FUSED = ("Relu", "Clip")


def keep_in_float(proto: ModelProto) -> None:
    """Shield the float layers of a file with q/dq pairs; in place.

    Layers with one input channel cannot be shielded so, and are left as they are.
    """
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    for node in list(graph.node):
        weight = constants.get(node.input[1]) if node.op_type in _ROUNDED else None
        if weight is None or weight.data_type != TensorProto.FLOAT:
            continue
        before = producers.get(node.input[0])
        width = _width(node, weight)
        if before is None or before.op_type != "DequantizeLinear" or width == 1:
            continue
        scale, zero = (_single(constants, name) for name in before.input[1:3])
        if scale is not None and zero is not None and _ends_in_quantizer(graph, node):
            _shield(graph, node, before.input[0], scale.repeat(width), zero.repeat(width))


def _shield(
    graph: GraphProto,
    node: NodeProto,
    integers: str,
    scale: NDArray[np.generic],
    zero: NDArray[np.generic],
) -> None:
    """Give a layer a dequantizer of its own, with one scale for each channel."""
    name = f"{node.name}.input"
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    graph.initializer.append(numpy_helper.from_array(zero, f"{name}_zero_point"))
    parts = [integers, f"{name}_scale", f"{name}_zero_point"]
    own = helper.make_node("DequantizeLinear", parts, [name], name=f"{name}_dequantize", axis=1)
    node.input[0] = name
    graph.node.insert(list(graph.node).index(node), own)


def _single(constants: Mapping[str, TensorProto], name: str) -> NDArray[np.generic] | None:
    """Return a constant of one value as an array of one; None for any other."""
    values = numpy_helper.to_array(constants[name]) if name in constants else None
    return values.reshape(1) if values is not None and values.size == 1 else None


def _width(node: NodeProto, weight: TensorProto) -> int:
    """Return how many input channels a layer reads."""
    numbers = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv":
        return int(weight.dims[1] * numbers.get("group", 1))
    if node.op_type == "Gemm":
        return int(weight.dims[1 if numbers.get("transB", 0) else 0])
    return int(weight.dims[0])


def _ends_in_quantizer(graph: GraphProto, node: NodeProto) -> bool:
    """Whether a layer's output goes to one quantizer alone, through ReLU or Clip at most."""
    while True:
        users = [user for user in graph.node if node.output[0] in user.input]
        if len(users) != 1 or users[0].op_type not in ("QuantizeLinear", *_FUSED):
            return False
        node = users[0]
        if node.op_type == "QuantizeLinear":
            return True

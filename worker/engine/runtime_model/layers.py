"""The weighted nodes of an ONNX graph, by the names that reports and `keep_float` use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from planish.contract.onnx_models import computes_in_integers
from worker.engine.report.layers import LayerSize

Values = NDArray[Any]
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
LOOKUP = "Gather"
RECURRENT = ("LSTM", "GRU", "RNN")
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_HANDING_ON = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_CARRIERS = ("Cast", "DequantizeLinear", "Identity", "Reshape", "Transpose")


@dataclass(frozen=True)
class Layer:
    """One node with a weight.

    Attributes:
        name: of the node.
        kind: its operator.
        weight: name of the initializer that it reads, through whatever carries it.
        bias: name of its bias, None without one.
        shape: of the weight.
        dtype: of the weight, an ONNX element type.
        direct: whether nothing stands between the weight and the node.
    """

    name: str
    kind: str
    weight: str
    bias: str | None
    shape: tuple[int, ...]
    dtype: int
    direct: bool

    @property
    def is_float(self) -> bool:
        """Whether the weight is a plain float32 initializer of this node."""
        return self.direct and self.dtype == TensorProto.FLOAT


class Graph:
    """A graph with its constants and users by name; made anew after every change."""

    def __init__(self, proto: ModelProto) -> None:
        """Index the outermost graph; branches are left as they are."""
        self.graph: GraphProto = proto.graph
        self.constants: dict[str, TensorProto] = {t.name: t for t in self.graph.initializer}
        self.producers: dict[str, NodeProto] = {
            output: node for node in self.graph.node for output in node.output
        }

    @cached_property
    def users(self) -> Mapping[str, list[tuple[NodeProto, int]]]:
        """The nodes that read a value, with the position among their inputs."""
        found: dict[str, list[tuple[NodeProto, int]]] = {}
        for node in self.graph.node:
            for index, name in enumerate(node.input):
                found.setdefault(name, []).append((node, index))
        return found

    def source(self, name: str) -> tuple[str, bool]:
        """Return the constant behind a value, and whether it is that value itself; '' for none."""
        direct = name in self.constants
        while name in self.producers and self.producers[name].op_type in _CARRIERS:
            name = self.producers[name].input[0]
        return (name if name in self.constants else ""), direct

    def layers(self) -> Iterator[Layer]:
        """Yield the weighted nodes in order."""
        for node in self.graph.node:
            place = {LOOKUP: 0}.get(node.op_type, 1)
            if node.op_type not in (*PRODUCTS, LOOKUP, *RECURRENT) or len(node.input) <= place:
                continue
            weight, direct = self.source(node.input[place])
            tensor = self.constants.get(weight)
            if tensor is None or not _is_weight(node, tensor):
                continue
            bias = node.input[2] if len(node.input) > 2 and node.op_type in PRODUCTS else ""
            yield Layer(
                name=node.name,
                kind=node.op_type,
                weight=weight,
                bias=self.source(bias)[0] or None if bias else None,
                shape=tuple(tensor.dims),
                dtype=tensor.data_type,
                direct=direct,
            )


def _is_weight(node: NodeProto, tensor: TensorProto) -> bool:
    """Tell weights from constants that only shape the computation."""
    if node.op_type == LOOKUP:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        return len(tensor.dims) == 2 and axis == 0 and _holds_numbers(tensor)
    return len(tensor.dims) > 1 and _holds_numbers(tensor)


def _holds_numbers(tensor: TensorProto) -> bool:
    return tensor.data_type in (*FLOATS, TensorProto.INT8, TensorProto.UINT8)


def layers_of(proto: ModelProto) -> tuple[Layer, ...]:
    """Return the weighted nodes of a graph, in order."""
    return tuple(Graph(proto).layers())


def sizes_of(proto: ModelProto) -> dict[str, LayerSize]:
    """Return the sizes of the weighted layers, for the report's table."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    return {
        layer.name: LayerSize(
            kind=layer.kind,
            params=int(np.prod(layer.shape))
            + (int(np.prod(constants[layer.bias].dims)) if layer.bias else 0),
            shape=layer.shape,
            dtype=helper.tensor_dtype_to_np_dtype(layer.dtype).name,
        )
        for layer in layers_of(proto)
    }


def tables_of(proto: ModelProto) -> dict[str, tuple[str, int]]:
    """Return the inputs that are looked up in a table as they are: its layer and number of rows."""
    graph = Graph(proto)
    rows = {layer.name: layer.shape[0] for layer in graph.layers() if layer.kind == LOOKUP}
    found: dict[str, tuple[str, int]] = {}
    for value in proto.graph.input:
        waiting = [value.name]
        while waiting:
            for node, index in graph.users.get(waiting.pop(), ()):
                if node.op_type == LOOKUP and index == 1 and node.name in rows:
                    found[value.name] = node.name, rows[node.name]
                elif node.op_type in _HANDING_ON and index == 0:
                    waiting.append(node.output[0])
    return found


def is_quantized(proto: ModelProto) -> bool:
    """Tell whether integers are computed with, or stored in place of floats, anywhere."""
    return any(computes_in_integers(node.op_type) for node in proto.graph.node)


def values_of(tensor: TensorProto) -> Values:
    """Return the values of a constant that lies in the graph."""
    values: Values = numpy_helper.to_array(tensor)
    return values

"""How much there is of an ONNX graph: learnt numbers, bytes, and work for one sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from worker.engine.measure.size import ParameterCount
from worker.engine.runtime_model.layers import FLOATS, RECURRENT, Graph, values_of
from worker.engine.runtime_model.session import Array, run_once

_STATISTICS = {"BatchNormalization": (3, 4)}
_SCALES = {"QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2)}
_UNCOUNTED = ("Attention", "DeformConv", "Einsum", "GroupQueryAttention", "LinearAttention",
              "MultiHeadAttention", "QAttention", "DFT", "STFT")  # fmt: skip
Shapes = Mapping[str, tuple[int, ...]]


def count_parameters(proto: ModelProto) -> ParameterCount:
    """Count weights and biases, float or integer: shared ones once, scales and statistics never."""
    graph = Graph(proto)
    total = nonzero = 0
    for name, tensor in graph.constants.items():
        if tensor.dims and any(
            _is_learnt(node, i, tensor) for node, i in graph.users.get(name, ())
        ):
            values = values_of(tensor)
            total += values.size
            nonzero += int(np.count_nonzero(values))
    return ParameterCount(total, nonzero)


def _is_learnt(node: NodeProto, index: int, tensor: TensorProto) -> bool:
    if index in (*_STATISTICS.get(node.op_type, ()), *_SCALES.get(node.op_type, ())):
        return False
    if tensor.data_type in FLOATS:
        return True
    small = tensor.data_type in (TensorProto.INT8, TensorProto.UINT8)
    dequantized = node.op_type == "DequantizeLinear" and index == 0
    return dequantized or (small and node.op_type in ("Gather", "MatMulInteger", "ConvInteger"))


def weight_bytes(proto: ModelProto) -> int:
    """Return the bytes of all constants, packed as they lie in the file."""
    return sum(
        len(tensor.raw_data) or values_of(tensor).nbytes for tensor in proto.graph.initializer
    )


def count_macs(proto: ModelProto, inputs: Mapping[str, Array], samples: int) -> int | None:
    """Return the multiply-accumulates of convolutions and matrix products for one sample.

    None where an operator multiplies in a way that is not counted (fused attention).
    """
    if any(node.op_type in _UNCOUNTED for node in proto.graph.node):
        return None
    return sum(product_macs(proto, inputs, samples).values())


def product_macs(proto: ModelProto, inputs: Mapping[str, Array], samples: int) -> dict[str, int]:
    """Return the multiply-accumulates of each convolution and matrix product for one sample.

    The graph runs once with the products' values as outputs: their shapes are what they are,
    however the graph computes them.

    Args:
        proto: a graph without integers, or with q/dq pairs.
        inputs: of one call.
        samples: in that call.
    """
    graph = Graph(proto)
    products = [node for node in graph.graph.node if node.op_type in _COUNTS]
    shapes: dict[str, tuple[int, ...]] = {n: tuple(t.dims) for n, t in graph.constants.items()}
    shapes |= {name: array.shape for name, array in inputs.items()}
    wanted = {name for node in products for name in (*node.input[:3], node.output[0]) if name}
    computed = sorted(wanted - shapes.keys())
    if computed:
        values = run_once(proto, inputs, computed)
        shapes |= {n: tuple(np.shape(v)) for n, v in zip(computed, values, strict=True)}
    return {node.name: _COUNTS[node.op_type](node, shapes) // samples for node in products}


def _convolution(node: NodeProto, shapes: Shapes) -> int:
    weight = shapes[node.input[1]]
    return math.prod(shapes[node.output[0]]) * math.prod(weight[1:])


def _transposed(node: NodeProto, shapes: Shapes) -> int:
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _product(node: NodeProto, shapes: Shapes) -> int:
    left, out = shapes[node.input[0]], shapes[node.output[0]]
    flipped = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(out) * left[0 if flipped else -1]


def _recurrent(node: NodeProto, shapes: Shapes) -> int:
    steps = math.prod(shapes[node.input[0]][:2])
    return steps * sum(math.prod(shapes[name]) for name in node.input[1:3])


_COUNTS: Mapping[str, Callable[[NodeProto, Shapes], int]] = {
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _product,
    "MatMul": _product,
    "MatMulInteger": _product,
    **dict.fromkeys(RECURRENT, _recurrent),
}

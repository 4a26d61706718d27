"""What the runtime really does: its optimized graph, read back.

A file full of q/dq pairs proves nothing. Where ONNX Runtime could not fuse a pair, the layer runs
in float between two conversions; its own optimized graph tells.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

from worker.engine.save.compact import layer_of_weight

_FLOAT = {"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
_INTEGER = {
    "ConvInteger",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
}


@dataclass(frozen=True)
class RuntimeGraph:
    """The optimized graph of a file.

    Attributes:
        operators: how often each operator runs.
        integer_layers: how many convolutions and matrix products run on integers.
        float_layers: names of those with weights that run in float.
    """

    operators: Mapping[str, int]
    integer_layers: int
    float_layers: tuple[str, ...]


def read_runtime_graph(path: Path) -> RuntimeGraph:
    """Let ONNX Runtime optimize a file and return what became of it.

    Hardware layouts are left out (extended optimizations): they rename what is to be recognized and
    never turn an integer kernel into a float one.
    """
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        optimized = Path(folder, "optimized.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(optimized).graph
    operators = Counter(node.op_type for node in graph.node)
    constants = {tensor.name for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    return RuntimeGraph(
        operators=dict(operators),
        integer_layers=sum(count for name, count in operators.items() if name in _INTEGER),
        float_layers=tuple(
            _name(node, weight)
            for node in graph.node
            if node.op_type in _FLOAT and (weight := _weight(node, constants, producers))
        ),
    )


def _weight(
    node: onnx.NodeProto, constants: set[str], producers: Mapping[str, onnx.NodeProto]
) -> str | None:
    """Return the constant that a product multiplies with; None when both sides are computed."""
    name = node.input[1]
    while name in producers and producers[name].op_type in ("DequantizeLinear", "Transpose"):
        name = producers[name].input[0]
    return name if name in constants else None


def _name(node: onnx.NodeProto, weight: str) -> str:
    """Return the layer: from its weight's name, else the node's, which the writer set to it."""
    return layer_of_weight(weight) if weight.endswith(".weight") else node.name

"""bfloat16 in ONNX: stored in 16 bits, computed in float32.

ONNX Runtime has next to no CPU kernels for bfloat16. It widens constants once, when it opens the
file, so the file is half as large and runs as fast as float32.
"""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, numpy_helper

from worker.engine.model import Model

_SMALLEST = 64
"""Elements below which the node that widens a constant takes more room than it saves."""


def widened(model: Model) -> Model:
    """Return a copy that holds the same numbers and computes in float32."""
    wide = model.clone()
    for node in list(wide.module.graph.nodes):
        if node.target is torch.ops.aten.to.dtype and node.args[1] == torch.bfloat16:
            node.replace_all_uses_with(node.args[0])
            wide.module.graph.erase_node(node)
    wide.module.recompile()
    wide.module.float()
    return replace(wide, precision=torch.float32)


def store_in_bfloat16(proto: ModelProto) -> None:
    """Store every float constant that loses nothing by it in 16 bits; in place."""
    graph = proto.graph
    widening = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < _SMALLEST:
            continue
        values = numpy_helper.to_array(tensor)
        small = values.astype(ml_dtypes.bfloat16)
        if not np.array_equal(small.astype(np.float32), values):
            continue
        name = tensor.name
        stored = f"{name}_bf16"
        tensor.CopyFrom(
            onnx.helper.make_tensor(
                stored, TensorProto.BFLOAT16, values.shape, small.tobytes(), raw=True
            )
        )
        widening.append(onnx.helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = [*widening, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)

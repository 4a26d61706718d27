"""ONNX Runtime over a graph in memory; nothing is ever opened by a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto

Array = NDArray[np.generic]
_SILENT = 4


def open_session(proto: ModelProto) -> onnxruntime.InferenceSession:
    """Return a session on the CPU with this process's number of threads."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_once(
    proto: ModelProto, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
) -> list[Array]:
    """Return some values of a graph for one call.

    Args:
        proto: the graph; left as it is.
        inputs: by name.
        outputs: names of any of its values; None for its outputs.
    """
    if outputs is not None:
        proto = exposing(proto, outputs)
    return list(open_session(proto).run(outputs and list(outputs), dict(inputs)))


def exposing(proto: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return a copy whose outputs are these values."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    known = {value.name: value for value in proto.graph.output}
    del copy.graph.output[:]
    for name in names:
        value = copy.graph.output.add()
        if name in known:
            value.CopyFrom(known[name])
        else:
            value.name = name  # ONNX Runtime infers type and shape
    return copy

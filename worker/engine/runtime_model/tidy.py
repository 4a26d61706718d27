"""From the graph as it was uploaded to one that can be worked on: the same function, one form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx import GraphProto, ModelProto, TensorProto
from onnx_ir.passes import common as passes

from planish.contract.errors import InvalidModel
from worker.engine.save.compact import compact

OPSET = 13
"""Older graphs are raised to it: the first one with a scale for each channel, and with bfloat16."""
_IR_VERSION = 8
_DEFAULT = TensorProto.DataLocation.DEFAULT


def tidy(proto: ModelProto) -> ModelProto:
    """Return a graph with constants as initializers, a name for each node, and no notes on nodes.

    Weighted nodes get the names of their layers where the exporter left them. The notes on the
    model itself (author, licence) stay.

    Raises:
        InvalidModel: an opset so old that it cannot be raised.
    """
    proto = _lifted(_raised(proto))
    proto.ir_version = max(proto.ir_version, _IR_VERSION)
    notes = [(note.key, note.value) for note in proto.metadata_props]
    about = proto.doc_string
    compact(proto)
    proto.doc_string = about
    for key, value in notes:
        proto.metadata_props.add(key=key, value=value)
    _name_nodes(proto.graph)
    return proto


def recompact(proto: ModelProto) -> None:
    """Merge constants and drop what quantizers wrote beside the graph; in place."""
    notes = [(n.key, n.value) for n in proto.metadata_props if not n.key.startswith("onnx.")]
    about = proto.doc_string
    compact(proto)
    proto.doc_string = about
    for key, value in notes:
        proto.metadata_props.add(key=key, value=value)
    used = {node.domain for graph in graphs_of(proto.graph) for node in graph.node} | {""}
    kept = [item for item in proto.opset_import if item.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and the branches in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs_of(attribute.g)


def _raised(proto: ModelProto) -> ModelProto:
    for item in proto.opset_import:
        item.domain = "" if item.domain == "ai.onnx" else item.domain
    version = next(item.version for item in proto.opset_import if item.domain == "")
    if version >= OPSET:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, OPSET)
    except RuntimeError as error:
        raise InvalidModel(
            f"the model has opset {version}, and cannot be raised to {OPSET}, which quantization "
            "needs; export it again with opset_version=18 or so"
        ) from error


def _lifted(proto: ModelProto) -> ModelProto:
    model = ir.from_proto(proto)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveInitializersFromInputsPass()(model)
    lifted: ModelProto = ir.to_proto(model)
    return lifted


def _name_nodes(graph: GraphProto) -> None:
    """Give each node a name that no other has."""
    seen: Counter[str] = Counter()
    taken = {node.name for node in graph.node}
    for index, node in enumerate(graph.node):
        if node.name and not seen[node.name]:
            seen[node.name] += 1
            continue
        base = node.name or f"{node.op_type}_{index}"
        name, more = base, 1
        while name in taken:
            more += 1
            name = f"{base}:{more}"
        node.name = name
        taken.add(name)
        seen[name] += 1

"""What an ONNX file says about itself, read without onnx: the wire format is walked, nothing runs.

Facts: onnx.proto of ONNX 1.23, docs/IR.md and docs/ExternalData.md of the same.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from planish.contract.errors import InvalidModel, UnsafeModel
from planish.gate.onnx.graph import MAX_NODES, GraphFacts, read_graph
from planish.gate.onnx.schema import MODEL, OPSET
from planish.gate.onnx.tensors import MAX_NAME, External, check_notes, entries
from planish.gate.protobuf import Budget, Message, read_message
from planish.gate.signature import BATCH, Signature, show_shape

__all__ = [
    "MAX_NODES",
    "OnnxHeader",
    "check_external",
    "looks_like_onnx",
    "onnx_inputs",
    "read_notes",
    "read_onnx",
]

MIN_IR, MAX_IR = 3, 14
MIN_OPSET, MAX_OPSET = 7, 28
MAX_FILE = (2 << 30) - 1

_CODE = {
    "functions": "functions of its own; export it with its functions inlined",
    "training_info": "a training graph; send the graph for inference",
    "configuration": "device configurations; send a graph for one device",
}


@dataclass(frozen=True)
class OnnxHeader:
    """What an ONNX file says about itself.

    Attributes:
        ir_version: of the file format.
        opset: of the standard operators.
        producer: who wrote it, as the file says.
        graph: inputs, outputs and counts.
        external: tensors whose bytes lie in other parts of the upload, by part and offset.
    """

    ir_version: int
    opset: int
    producer: str
    graph: GraphFacts
    external: tuple[External, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the other parts that this file needs, sorted."""
        return tuple(sorted({item.part for item in self.external}))


def looks_like_onnx(head: bytes) -> bool:
    """Tell from a file's first bytes: a small ir_version stands first, as all exporters write."""
    return len(head) >= 3 and head[0] == 0x08 and 1 <= head[1] < 0x20 and head[2] in _SECOND


# What follows ir_version in any exporter's files: producer, version, domain, doc, graph, opset.
_SECOND = frozenset(number << 3 | wire for number, wire in (
    (2, 2), (3, 2), (4, 2), (5, 0), (6, 2), (7, 2), (8, 2),
))  # fmt: skip


def read_onnx(path: Path) -> OnnxHeader:
    """Return what an ONNX file says about itself.

    Raises:
        InvalidModel: damaged, too large, or of versions that are not read.
        UnsafeModel: it brings functions, a training graph, or paths outside the upload.
        OperatorNotAllowed: an operator outside the table.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not 0 < size <= MAX_FILE:
            raise InvalidModel(
                f"the .onnx file has {size} bytes; at most {MAX_FILE} are taken, larger weights "
                "come as external data"
            )
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    budget = Budget(InvalidModel)
    model = read_message(content, MODEL, "the ONNX model", budget)
    for field, what in _CODE.items():
        if model.has(field):
            raise UnsafeModel(f"the ONNX model brings {what}")
    version = model.integer("ir_version")
    if not MIN_IR <= version <= MAX_IR:
        raise InvalidModel(
            f"the ONNX model has IR version {version}; {MIN_IR} to {MAX_IR} are read: export it "
            "again with a current exporter"
        )
    check_notes(model, budget)
    raw = model.bytes("graph")
    if raw is None:
        raise InvalidModel("the ONNX model has no graph; the file may be cut short")
    opset = _opset(model, budget)
    graph = read_graph(raw, budget)
    external = tuple(sorted(graph.external, key=lambda item: (item.part, item.offset)))
    _check_overlap(external)
    producer = model.text("producer_name", MAX_NAME)
    return OnnxHeader(version, opset, producer if producer.isprintable() else "", graph, external)


def read_notes(path: Path) -> dict[str, str]:
    """Return the texts in the ``metadata_props`` of a file that `read_onnx` took."""
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    budget = Budget(InvalidModel)
    return entries(read_message(content, MODEL, "the ONNX model", budget), "metadata_props", budget)


def _opset(model: Message, budget: Budget) -> int:
    """Return the version of the standard operators; other domains must be known."""
    versions: dict[str, int] = {}
    for raw in model.all("opset_import"):
        item = read_message(raw, OPSET, "the ONNX model's opset_import", budget)
        domain = item.text("domain", MAX_NAME)
        domain = "" if domain == "ai.onnx" else domain
        if domain in versions:
            item.wrong(f"the domain {domain[:100]!r} stands twice")
        versions[domain] = item.integer("version")
        if len(versions) > 16:
            item.wrong("more than 16 domains")
    opset = versions.get("", 0)
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise InvalidModel(
            f"the ONNX model has opset {opset}; {MIN_OPSET} to {MAX_OPSET} are read: export it "
            "again with opset_version=18 or so"
        )
    if versions.get("com.microsoft", 1) != 1:
        raise InvalidModel("the ONNX model has another opset of com.microsoft than 1")
    return opset


def _check_overlap(external: tuple[External, ...]) -> None:
    """Refuse tensors that share bytes of a part."""
    for one, other in pairwise(external):
        if one.part == other.part and one.offset + one.size > other.offset:
            raise InvalidModel(
                f"the tensors {one.tensor[:100]!r} and {other.tensor[:100]!r} overlap in {one.part}"
            )


def check_external(header: OnnxHeader, parts: Mapping[str, Path]) -> None:
    """Refuse external data that the upload's other parts do not hold.

    Args:
        header: of the model.
        parts: the named parts of the same upload.

    Raises:
        InvalidModel: a part is missing or too short.
    """
    sizes = {name: path.stat().st_size for name, path in parts.items()}
    for item in header.external:
        if item.part not in sizes:
            raise InvalidModel(
                f"the ONNX model has weights in {item.part!r}; send that file as another part "
                "named model, under this file name"
            )
        if item.offset + item.size > sizes[item.part]:
            raise InvalidModel(
                f"{item.part!r} has {sizes[item.part]} bytes; the tensor {item.tensor[:100]!r} "
                f"needs {item.size} from {item.offset}"
            )


def onnx_inputs(header: OnnxHeader) -> tuple[Signature, ...]:
    """Return the inputs, their first dimension named ``batch``.

    Raises:
        InvalidModel: no input, or a fixed batch dimension.
    """
    if not header.graph.inputs:
        raise InvalidModel("the model has no tensor input")
    for item in header.graph.inputs:
        if not item.shape or item.shape[0] != BATCH:
            raise InvalidModel(
                f"input {item.name!r} has shape {show_shape(item.shape)}; the first dimension of "
                "every input must be one dynamic batch. Export again with "
                "dynamic_axes={" + repr(item.name) + ": {0: 'batch'}}"
            )
    return header.graph.inputs

"""The graph of an ONNX file: each name defined once and before its use, operators of the table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planish.contract.errors import InvalidModel, UnsafeModel
from planish.gate.onnx.operators import check_operator
from planish.gate.onnx.schema import (
    ATTRIBUTE,
    DIMENSION,
    GRAPH,
    NODE,
    SHAPE,
    TENSOR_TYPE,
    TYPE,
    VALUE,
)
from planish.gate.onnx.tensors import (
    MAX_DIMENSION,
    MAX_DOC,
    MAX_NAME,
    MAX_RANK,
    TYPES,
    External,
    check_name,
    check_notes,
    read_tensor,
)
from planish.gate.protobuf import Budget, Message, read_message
from planish.gate.signature import BATCH, Signature

MAX_NODES = 50_000
MAX_INITIALIZERS = 100_000
MAX_DEPTH = 4
MAX_INPUTS = 1_000
MAX_NUMBERS = 65_536
MAX_STRING = 1 << 16

# The names that a node may use: those of the graphs around it, outermost first, and its own.
_Scopes = tuple[set[str], ...]

# Where each type of attribute has its value (AttributeProto.AttributeType); the rest is refused.
_VALUES = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings"}
_NEVER = (
    "ref_attr_name", "tp", "type_protos", "sparse_tensor", "sparse_tensors", "tensors", "graphs",
)  # fmt: skip


@dataclass(frozen=True)
class GraphFacts:
    """What a graph says about itself.

    Attributes:
        inputs: without those that have a default; a size that varies is a text, the first one of
            the first dimensions is ``batch``.
        outputs: by name, type and shape, sizes as in `inputs`.
        nodes: how many, those of branches included.
        operators: the names of those that are called, sorted.
        weight_bytes: of all initializers, wherever they lie.
        external: tensors whose bytes lie elsewhere.
    """

    inputs: tuple[Signature, ...]
    outputs: tuple[Signature, ...]
    nodes: int
    operators: tuple[str, ...]
    weight_bytes: int
    external: tuple[External, ...]


class _Walk:
    """What is counted over a graph and its branches."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.nodes = 0
        self.initializers = 0
        self.weight_bytes = 0
        self.operators: set[str] = set()
        self.external: list[External] = []


def read_graph(raw: memoryview, budget: Budget) -> GraphFacts:
    """Check a model's graph; see `read_onnx` for what is raised."""
    walk = _Walk(budget)
    graph, weights = _graph(raw, walk, ())
    symbols: dict[str, str] = {}
    inputs, outputs = (
        tuple(_signature(value, symbols, budget) for value in graph.all(field))
        for field in ("input", "output")
    )
    return GraphFacts(
        tuple(item for item in inputs if item.name not in weights),
        outputs,
        walk.nodes,
        tuple(sorted(walk.operators)),
        walk.weight_bytes,
        tuple(walk.external),
    )


def _graph(raw: memoryview, walk: _Walk, outer: _Scopes) -> tuple[Message, frozenset[str]]:
    """Check a graph; return it and the names of its initializers."""
    if len(outer) > MAX_DEPTH:
        raise InvalidModel(f"the ONNX graph has branches deeper than {MAX_DEPTH}")
    graph = read_message(raw, GRAPH, "the ONNX graph", walk.budget)
    if graph.has("sparse_initializer") or graph.has("quantization_annotation"):
        graph.wrong("it has sparse weights or quantization annotations; dense tensors are taken")
    check_notes(graph, walk.budget)
    if not graph.has("output"):
        graph.wrong("it has no output")
    weights = _initializers(graph, walk)
    inputs: set[str] = set()
    for value in graph.all("input"):
        _define(graph, _value_name(value, walk.budget), (*outer, inputs))
    for name in weights:
        _define(graph, name, (*outer, set()))
    scopes = (*outer, inputs | weights)
    for node in graph.all("node"):
        _node(node, graph, walk, scopes)
    for value in graph.all("output"):
        name = _value_name(value, walk.budget)
        if not _known(name, scopes):
            graph.wrong(f"the output {name[:100]!r} is computed nowhere")
    for value in graph.all("value_info"):
        _signature(value, {}, walk.budget)
    return graph, weights


def _initializers(graph: Message, walk: _Walk) -> frozenset[str]:
    tensors = graph.all("initializer")
    walk.initializers += len(tensors)
    if walk.initializers > MAX_INITIALIZERS:
        graph.wrong(f"it has more than {MAX_INITIALIZERS} weights")
    names: set[str] = set()
    for raw in tensors:
        tensor = read_tensor(raw, "a weight of the ONNX graph", walk.budget)
        _define(graph, tensor.name, (names,))
        walk.weight_bytes += tensor.size
        if tensor.external is not None:
            walk.external.append(tensor.external)
    return frozenset(names)


def _known(name: str, scopes: _Scopes) -> bool:
    return any(name in scope for scope in scopes)


def _define(graph: Message, name: str, scopes: _Scopes) -> None:
    if _known(name, scopes):
        graph.wrong(f"the name {name[:100]!r} is given twice")
    scopes[-1].add(name)


def _node(raw: memoryview, graph: Message, walk: _Walk, scopes: _Scopes) -> None:
    node = read_message(raw, NODE, "a node of the ONNX graph", walk.budget)
    walk.nodes += 1
    if walk.nodes > MAX_NODES:
        graph.wrong(f"it has more than {MAX_NODES} nodes")
    domain, kind = node.text("domain", MAX_NAME), node.text("op_type", MAX_NAME)
    check_operator(domain, kind, node.text("name", MAX_DOC))
    walk.operators.add(kind)
    if node.has("overload") and node.text("overload", MAX_NAME):
        node.wrong("it calls an overload, which only functions have")
    if node.has("device_configurations"):
        node.wrong("it has device configurations; send a graph for one device")
    check_notes(node, walk.budget)
    if len(node.all("input")) > MAX_INPUTS or len(node.all("output")) > MAX_INPUTS:
        node.wrong(f"it has more than {MAX_INPUTS} inputs or outputs")
    for piece in node.all("input"):
        name = node.decode(piece, "an input", MAX_NAME)
        if name and not _known(name, scopes):
            node.wrong(f"the input {name[:100]!r} is computed nowhere before")
    _attributes(node, kind, walk, scopes)
    for piece in node.all("output"):
        name = node.decode(piece, "an output", MAX_NAME)
        if name:
            check_name(node, name)
            _define(graph, name, scopes)


def _attributes(node: Message, kind: str, walk: _Walk, scopes: _Scopes) -> None:
    names: set[str] = set()
    for raw in node.all("attribute"):
        attribute = read_message(raw, ATTRIBUTE, f"an attribute of {kind}", walk.budget)
        name = attribute.text("name", MAX_NAME)
        check_name(attribute, name)
        if name in names:
            attribute.wrong(f"{name[:100]!r} stands twice")
        names.add(name)
        _attribute(attribute, name, kind, walk, scopes)


def _attribute(attribute: Message, name: str, kind: str, walk: _Walk, scopes: _Scopes) -> None:
    attribute.text("doc_string", MAX_DOC)
    for field in _NEVER:
        if attribute.has(field):
            attribute.wrong(f"{name[:100]!r} has {field}, which is not taken")
    wanted = _VALUES.get(attribute.integer("type"))
    given = [field for field in _VALUES.values() if attribute.has(field)]
    if wanted is None or any(field != wanted for field in given):
        attribute.wrong(f"{name[:100]!r} has another value than its type says")
    if wanted == "g":
        raw = attribute.bytes("g")
        if kind != "If" or raw is None:
            raise UnsafeModel(f"the ONNX model's {kind} has a graph of its own in {name[:100]!r}")
        _graph(raw, walk, scopes)
    elif wanted == "t":
        tensor = read_tensor(attribute.bytes("t") or memoryview(b""), f"a tensor of {kind}",
                             walk.budget, name)  # fmt: skip
        if tensor.external is not None:
            attribute.wrong(f"{name[:100]!r} has its bytes in another file; weights alone may")
        walk.weight_bytes += tensor.size
    elif wanted == "ints":
        attribute.integers("ints", MAX_NUMBERS)
    elif wanted == "floats" and attribute.count_wide("floats", 4) > MAX_NUMBERS:
        attribute.wrong(f"{name[:100]!r} has more than {MAX_NUMBERS} numbers")
    elif wanted in ("s", "strings") and (
        kind == "Constant" or sum(map(len, attribute.all(wanted))) > MAX_STRING
    ):
        attribute.wrong(f"{name[:100]!r} has strings that are not taken")


def _value_name(raw: memoryview, budget: Budget) -> str:
    value = read_message(raw, VALUE, "a value of the ONNX graph", budget)
    name = value.text("name", MAX_NAME)
    check_name(value, name)
    return name


def _signature(raw: memoryview, symbols: dict[str, str], budget: Budget) -> Signature:
    """Return name, type and shape of an input, output or inner value."""
    value = read_message(raw, VALUE, "a value of the ONNX graph", budget)
    name = value.text("name", MAX_NAME)
    check_name(value, name)
    check_notes(value, budget)
    content = value.bytes("type")
    kind = read_message(content or memoryview(b""), TYPE, f"the type of {name[:100]!r}", budget)
    content = kind.bytes("tensor_type")
    if content is None or len(kind.slices) > 1 + kind.has("denotation"):
        kind.wrong(
            "it is no dense tensor; sequences, maps, optionals and opaque types are not taken"
        )
    tensor = read_message(content, TENSOR_TYPE, f"the type of {name[:100]!r}", budget)
    if tensor.integer("elem_type") not in TYPES:
        tensor.wrong(f"element type {tensor.integer('elem_type')} is not taken; plain numbers are")
    dtype = TYPES[tensor.integer("elem_type")][0]
    shape = read_message(tensor.bytes("shape") or memoryview(b""), SHAPE, name[:100], budget)
    dims = shape.all("dim")
    if len(dims) > MAX_RANK:
        shape.wrong(f"{len(dims)} dimensions; at most {MAX_RANK} are taken")
    sizes = tuple(
        _dimension(dim, place, f"{name}[{place}]", symbols, budget)
        for place, dim in enumerate(dims)
    )
    if math.prod(size for size in sizes if isinstance(size, int)) >= MAX_DIMENSION:
        shape.wrong("it has more elements than any tensor")
    return Signature(name, sizes, dtype)


def _dimension(
    raw: memoryview, place: int, own: str, symbols: dict[str, str], budget: Budget
) -> int | str:
    dimension = read_message(raw, DIMENSION, f"the dimension {own[:100]}", budget)
    symbol = dimension.text("dim_param", MAX_NAME)
    if dimension.has("dim_value") and symbol:
        dimension.wrong("it has a size and a name")
    size = dimension.integer("dim_value", -1)
    if dimension.has("dim_value") and 0 <= size < MAX_DIMENSION:
        return size
    if size != -1:
        dimension.wrong(f"{size} is no size")
    first = BATCH if place == 0 and BATCH not in symbols.values() else f"dim_{len(symbols)}"
    return symbols.setdefault(symbol or own, first)

"""How data flows through a graph: dominators, and the stretches with one way in and one way out.

Data is what depends on the values of the inputs through a layer with weights. Attention masks,
rotary tables, positions and sizes are not: they stay there whatever is cut out, so ways through
them do not count. A stretch runs from a value that all data passes to the next such value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import fx, nn

from worker.engine.passes.layers import Weighted, layer_of, operator_name

SIZES = frozenset(("sym_size", "sym_numel", "sym_stride", "sym_storage_offset"))
RECURRENT = frozenset(("lstm", "gru", "rnn_tanh", "rnn_relu"))
_MATRIX = 2  # a parameter with fewer dimensions scales or shifts


@dataclass(frozen=True, eq=False)
class Link:
    """A stretch of the graph with one way in and one way out.

    Attributes:
        entry: the value before it; all data that reaches `exit` comes from here.
        exit: its last value; all data that leaves `entry` goes through here.
        nodes: what is computed in between, in graph order, `exit` included.
    """

    entry: fx.Node
    exit: fx.Node
    nodes: tuple[fx.Node, ...]


Chain = tuple[Link, ...]
"""Links one after the other: each one's entry is the exit of the one before."""


def find_chains(module: fx.GraphModule) -> list[Chain]:
    """Return all chains of links, in graph order of their first entries.

    A value x and its immediate post-dominator y make a link if x is the immediate dominator of y
    (single-entry single-exit regions: Johnson et al. 1994, "The program structure tree", section
    2, with values instead of edges). Regions are nested or apart, never half in one another.
    A value that is a model output besides still counts as flowing on.
    """
    data = data_nodes(module)
    members = set(data)
    before = {node: _data_inputs(node, members) for node in data}
    after: dict[fx.Node, list[fx.Node]] = {node: [] for node in data}
    for node, inputs in before.items():
        for value in inputs:
            after[value].append(node)
    dominators = _immediate(data, before)
    post = _immediate(data[::-1], after)
    exits = {x: y for x, y in post.items() if y is not None and dominators[y] is x}
    place = {node: index for index, node in enumerate(data)}
    links = {x: Link(x, y, _between(x, y, before, place)) for x, y in exits.items()}
    ends = set(exits.values())
    starts = [node for node in links if node not in ends]
    return [tuple(_follow(start, links)) for start in starts]


def data_nodes(module: fx.GraphModule) -> list[fx.Node]:
    """Return, in graph order, the nodes whose values come from the inputs through weights."""
    valued: set[fx.Node] = set()
    data: dict[fx.Node, None] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            valued.add(node)
        if node.op not in ("call_function", "call_module", "call_method") or sizes(node):
            continue
        if valued.isdisjoint(node.all_input_nodes):
            continue
        valued.add(node)
        if weighted(module, node) or any(value in data for value in node.all_input_nodes):
            data[node] = None
    return list(data)


def sizes(node: fx.Node) -> bool:
    """Tell whether a node reads the shape of a value, not the value."""
    return operator_name(node).partition(".")[0] in SIZES


def weighted(module: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a node multiplies by weights: a layer that does, or a call with a matrix."""
    if node.op == "call_module":
        return isinstance(layer_of(module, node), Weighted)
    return any(
        value.op == "get_attr" and _is_matrix(module, str(value.target))
        for value in node.all_input_nodes
    )


def _is_matrix(module: fx.GraphModule, name: str) -> bool:
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return isinstance(found, nn.Parameter) and found.squeeze().dim() >= _MATRIX


def recurrent(node: fx.Node) -> bool:
    """Tell whether a node steps through a sequence with a state."""
    return operator_name(node) in RECURRENT


def _data_inputs(node: fx.Node, data: Collection[fx.Node]) -> list[fx.Node]:
    return [value for value in node.all_input_nodes if value in data]


def _immediate(
    order: Sequence[fx.Node],
    before: Mapping[fx.Node, Sequence[fx.Node]],
) -> dict[fx.Node, fx.Node | None]:
    """Return the immediate dominators in an acyclic graph; None stands for the root above all.

    Args:
        order: topological.
        before: predecessors of each node; the root is that of nodes without any.
    """
    parent: dict[fx.Node, fx.Node | None] = {}
    depth: dict[fx.Node | None, int] = {None: 0}

    def common(a: fx.Node | None, b: fx.Node | None) -> fx.Node | None:
        while a is not b:
            if depth[a] < depth[b]:
                a, b = b, a
            a = parent[a] if a is not None else None
        return a

    for node in order:
        known = before[node]
        above: fx.Node | None = known[0] if known else None
        for value in known[1:]:
            above = common(above, value)
        parent[node] = above
        depth[node] = depth[parent[node]] + 1
    return parent


def _between(
    entry: fx.Node,
    end: fx.Node,
    before: Mapping[fx.Node, Sequence[fx.Node]],
    place: Mapping[fx.Node, int],
) -> tuple[fx.Node, ...]:
    found: dict[fx.Node, None] = {}
    todo = [end]
    while todo:
        node = todo.pop()
        if node is not entry and node not in found:
            found[node] = None
            todo += before[node]
    return tuple(sorted(found, key=place.__getitem__))


def _follow(start: fx.Node, links: Mapping[fx.Node, Link]) -> Iterable[Link]:
    node = start
    while node in links:
        yield links[node]
        node = links[node].exit

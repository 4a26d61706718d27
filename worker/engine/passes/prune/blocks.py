"""Removable blocks of any graph: they keep the shape, so that their input can stand for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from worker.engine.load.attention import Attention
from worker.engine.model import Model
from worker.engine.passes.layers import layer_of, operator_name
from worker.engine.passes.prune.regions import Chain, Link, find_chains, recurrent, sizes, weighted

FUNCTIONS = "fn."
LONGEST_PLAIN = 32  # steps of a plain chain that may make one block
_THROUGH = frozenset(("dropout", "contiguous", "clone", "alias", "detach", "to", "_to_copy"))
_ADDS = frozenset(("add", "add_"))
_ATTENTION = frozenset(("scaled_dot_product_attention", "softmax", "_softmax"))

Form = tuple[tuple[int, ...], torch.dtype]


@dataclass(frozen=True, eq=False)
class Block:
    """A stretch of the graph that can go: its readers read `entry` instead of `exit`.

    Attributes:
        name: what its layers' paths have in common.
        layers: its layers with parameters, in graph order.
        entry: the value before it.
        exit: its last value, of the shape and type of `entry`.
        nodes: what is computed in between, `exit` included.
        residual: whether it adds to its input.
    """

    name: str
    layers: tuple[str, ...]
    entry: fx.Node
    exit: fx.Node
    nodes: frozenset[fx.Node] = field(repr=False)
    residual: bool


@dataclass(frozen=True)
class Found:
    """The blocks of a graph in its order, and what looked like one but has to stay, with why."""

    blocks: tuple[Block, ...]
    refused: dict[str, str]


def find_blocks(model: Model) -> Found:
    """Find the blocks that can go, none of which overlaps another.

    - Residual blocks: links whose result is the input plus something, with the activation or the
      normalization behind the sum where the input came out of the like.
    - Attention and what follows it within the same module (a transformer layer) are one block.
    - Elsewhere, the shortest stretch of a plain chain with a convolution or linear layer between
      two calls of the same kind and shape (from ReLU to ReLU).

    A block that holds two or more residual blocks gives way to them.
    """
    module = model.module
    search = _Search(module, _forms(model), _written(module.graph))
    for chain in find_chains(module):
        search.visit(chain)
    blocks = _apart(search.blocks, search.reshaping)
    return Found(_named(_layers_joined(module, blocks)), search.refused)


class _Search:
    """Collects the candidates of one graph, nested ones included."""

    def __init__(
        self, module: fx.GraphModule, forms: dict[fx.Node, set[Form]], written: set[fx.Node]
    ) -> None:
        self.module, self.forms, self.written = module, forms, written
        self.blocks: list[Block] = []
        self.refused: dict[str, str] = {}
        self.reshaping: list[frozenset[fx.Node]] = []

    def visit(self, chain: Chain) -> None:
        """Add the blocks of one chain."""
        at = 0
        while at < len(chain):
            end = self._residual_end(chain, at) or self._plain_end(chain, at)
            if end is not None:
                self._add(chain[at:end])
            at = end or at + 1

    def _residual_end(self, chain: Chain, at: int) -> int | None:
        """Return where the residual block that begins at a link ends (exclusive)."""
        link = chain[at]
        if not (_sums(link.exit) and len(link.nodes) > 1 and self._works(link.nodes)):
            return None
        if not (self._same_form(link.entry, link.exit) and _carries(link.exit, link)):
            self.reshaping.append(frozenset(link.nodes))
            self._refuse(link.nodes, "its output has another shape than its input")
            return None
        kind = self._kind(link.entry)
        if kind == self._kind(link.exit):
            return at + 1
        for end in range(at + 1, len(chain)):
            if self._works(chain[end].nodes) or not self._same_form(link.entry, chain[end].exit):
                break
            if kind == self._kind(chain[end].exit):
                return end + 1
        return at + 1

    def _plain_end(self, chain: Chain, at: int) -> int | None:
        """Return where the shortest plain stretch between values of one kind ends."""
        entry, kind, works = chain[at].entry, self._kind(chain[at].entry), False
        if not (kind[:1].isupper() and weighted(self.module, chain[at].exit)):
            return None  # plain blocks go from layer to layer, and begin with one that works
        for end in range(at, min(at + LONGEST_PLAIN, len(chain))):
            link = chain[end]
            if _sums(link.exit) or any(map(recurrent, link.nodes)):
                return None
            works = works or self._works(link.nodes)
            if works and kind == self._kind(link.exit) and self._same_form(entry, link.exit):
                return end + 1
        return None

    def _add(self, links: Chain) -> None:
        ordered = [node for link in links for node in link.nodes]
        entry, end, nodes = links[0].entry, links[-1].exit, frozenset(ordered)
        residual = any(_sums(link.exit) for link in links)
        layers = _layers(self.module, ordered)
        if not residual and any(user.op == "output" for user in end.users):
            return
        block = Block(_name(layers), layers, entry, end, nodes, residual)
        if any(map(recurrent, nodes)):
            self._refuse(links[0].nodes, "it steps through a sequence with a state")
        elif not self.written.isdisjoint({entry, *nodes}):
            self._refuse(links[0].nodes, "its values are overwritten in place")
        elif any(_read_outside(node, nodes) for node in nodes if node is not end):
            self._refuse(links[0].nodes, "values inside it are read elsewhere")
        else:
            self.blocks.append(block)

    def _refuse(self, nodes: Sequence[fx.Node], why: str) -> None:
        name = _name(_layers(self.module, nodes))
        if name:
            self.refused[name] = why

    def _works(self, nodes: Sequence[fx.Node]) -> bool:
        """Tell whether there is a layer to gain from; a depthwise one belongs to its pointwise."""
        return any(weighted(self.module, n) and not _depthwise(self.module, n) for n in nodes)

    def _same_form(self, a: fx.Node, b: fx.Node) -> bool:
        return a in self.forms and self.forms[a] == self.forms.get(b)

    def _kind(self, node: fx.Node) -> str:
        while _passes_through(self.module, node) and node.all_input_nodes:
            node = node.all_input_nodes[0]
        layer = layer_of(self.module, node)
        return type(layer).__name__ if layer is not None else operator_name(node)


def _forms(model: Model) -> dict[fx.Node, set[Form]]:
    """Return the shapes and types of each tensor at two batch sizes."""
    recorder = _Recorder(model.module)
    with torch.no_grad():
        for batch in (2, 3):
            recorder.run(*model.example(batch))
    return recorder.forms


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.forms: dict[fx.Node, set[Form]] = {}

    def run_node(self, n: fx.Node) -> object:
        value: object = super().run_node(n)
        if isinstance(value, Tensor):
            self.forms.setdefault(n, set()).add((tuple(value.shape), value.dtype))
        return value


def _written(graph: fx.Graph) -> set[fx.Node]:
    """Return the values that a call in the graph overwrites, with everything they are views of."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        value: fx.Node | None = node
        while value is not None and value not in found:
            found.add(value)
            value = next(iter(value.all_input_nodes), None) if _aliases(value) else None
    return found


def _aliases(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    named = operator_name(node) in ("getitem", "reshape")
    return named or (schema is not None and any(a.alias_info for a in schema.arguments))


def _sums(node: fx.Node) -> bool:
    return operator_name(node) in _ADDS and len(node.all_input_nodes) > 1


def _carries(node: fx.Node, link: Link) -> bool:
    """Tell whether a value is the link's entry plus something, however many terms there are."""
    if node is link.entry:
        return True
    if node not in link.nodes:
        return False
    name = operator_name(node)
    return (name in _ADDS or name in _THROUGH) and any(
        _carries(value, link) for value in node.all_input_nodes
    )


def _passes_through(module: fx.GraphModule, node: fx.Node) -> bool:
    layer = layer_of(module, node)
    return operator_name(node) in _THROUGH or isinstance(layer, nn.Dropout | nn.Identity)


def _depthwise(module: fx.GraphModule, node: fx.Node) -> bool:
    layer = layer_of(module, node)
    return isinstance(layer, _ConvNd) and layer.groups == layer.in_channels > 1


def _read_outside(node: fx.Node, nodes: frozenset[fx.Node]) -> bool:
    """Tell whether anything but the block reads a value, or its size."""
    return any(
        user not in nodes and (not sizes(user) or _read_outside(user, nodes)) for user in node.users
    )


def _layers(module: fx.GraphModule, nodes: Sequence[fx.Node]) -> tuple[str, ...]:
    """Return the layers with parameters that nodes call."""
    called = (str(node.target) for node in nodes if node.op == "call_module")
    owners = (
        name for name in called if next(module.get_submodule(name).parameters(), None) is not None
    )
    return tuple(dict.fromkeys(owners))


def _name(layers: Sequence[str]) -> str:
    """Return the path that all layers share; without one, the first and the last of them."""
    if len(layers) < 2:
        return "".join(layers)
    steps = zip(*(name.split(".") for name in layers), strict=False)
    shared = takewhile(lambda step: len(set(step)) == 1, steps)
    return ".".join(step[0] for step in shared) or f"{layers[0]}…{layers[-1]}"


def _apart(blocks: Sequence[Block], reshaping: Sequence[frozenset[fx.Node]]) -> list[Block]:
    """Keep blocks that do not overlap, in graph order; see `find_blocks` for who gives way.

    Parts of a residual block that changes the shape are no blocks of their own.
    """
    residual = [block for block in blocks if block.residual]
    blocks = [b for b in blocks if b.residual or not any(b.nodes < whole for whole in reshaping)]
    inside = {b: [o for o in residual if o is not b and o.nodes < b.nodes] for b in blocks}
    outer = [b for b in blocks if len(inside[b]) < (2 if b.residual else 1)]
    kept: list[Block] = []
    for block in sorted(outer, key=lambda b: (not b.residual, -len(b.nodes))):
        if all(block.nodes.isdisjoint(other.nodes) for other in kept):
            kept.append(block)
    return sorted(kept, key=lambda block: block.exit)


def _layers_joined(module: fx.GraphModule, blocks: Sequence[Block]) -> list[Block]:
    """Make one block of attention and the part behind it, where both lie in one module."""
    joined: list[Block] = []
    for block in blocks:
        whole = _one_layer(module, joined[-1], block, blocks) if joined else None
        if whole is None:
            joined.append(block)
        else:
            joined[-1] = whole
    return joined


def _one_layer(module: fx.GraphModule, a: Block, b: Block, blocks: Sequence[Block]) -> Block | None:
    """Return two parts as one block, if they are attention and what follows it in a module."""
    between: list[fx.Node] = []
    entry = b.entry
    while entry is not a.exit and _passes_through(module, entry):
        between.append(entry)
        entry = entry.all_input_nodes[0]
    if entry is not a.exit or not _attends(module, a) or _attends(module, b):
        return None
    layers = a.layers + b.layers
    path = _name(layers)
    others = {name for o in blocks if o not in (a, b) for name in o.layers}
    if any(f"{name}.".startswith(f"{path}.") for name in others.difference(layers)):
        return None
    nodes = frozenset((*a.nodes, *between, *b.nodes))
    if any(_read_outside(node, nodes) for node in (a.exit, *between)):
        return None
    return Block(path, layers, a.entry, b.exit, nodes, residual=True)


def _attends(module: fx.GraphModule, block: Block) -> bool:
    return any(
        operator_name(node) in _ATTENTION
        or isinstance(layer_of(module, node), Attention | nn.Softmax)
        for node in block.nodes
    )


def _named(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Tell blocks of the same name apart: by their layers, or else by number."""
    counts = Counter(block.name for block in blocks)
    return tuple(_distinct(blocks, counts))


def _distinct(blocks: Sequence[Block], counts: Counter[str]) -> Iterator[Block]:
    seen: Counter[str] = Counter()
    for block in blocks:
        name = block.name
        if counts[name] > 1 and len({b.layers for b in blocks if b.name == name}) > 1:
            name = f"{block.layers[0]}…{block.layers[-1]}"
        seen[name] += 1
        yield replace(block, name=name if seen[name] == 1 else f"{name} (call {seen[name]})")

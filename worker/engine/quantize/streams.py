"""Where the channels of layers flow: values that one factor for each channel passes through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from worker.engine.model import Model
from worker.engine.passes.layers import layer_of, operator_name

_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout)
_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.Flatten,
)  # fmt: skip
_ELEMENTWISE_CALLS = {"relu", "relu_", "leaky_relu", "leaky_relu_", "dropout", "alias", "clone"}
_POOLING_CALLS = {
    "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
}  # fmt: skip
_ADDS = {"add", "add_"}

Layer = nn.Conv1d | nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class Stream:
    """Values that share their channels, and the layers at both ends.

    A convolution and the one behind its ReLU; or all blocks of a residual stage.

    Attributes:
        makers: layers whose output channels flow in.
        readers: layers whose input channels they are.
    """

    makers: tuple[str, ...]
    readers: tuple[str, ...]

    def words(self) -> str:
        """Return the stream for people."""
        return f"{', '.join(self.makers)} → {', '.join(self.readers)}"


def streams(model: Model) -> Iterator[Stream]:
    """Yield every stream whose channels may be scaled without changing the model's function.

    All that touches its values lets positive factors through: convolutions and linear layers (also
    depthwise, and behind a flattening), ReLU, leaky ReLU, pooling, zero padding, additions of
    equal shapes. A stream that reaches an output, a concatenation, ReLU6 or anything else is left
    out, and so are layers that are called twice or share a weight.
    """
    yield from _Tracer(model).found()


class _Tracer:
    """Groups values into streams: union-find over the nodes of the graph."""

    def __init__(self, model: Model) -> None:
        self.module = model.module
        self.shapes = _shapes(model)
        self.parent: dict[fx.Node, fx.Node] = {}
        self.blocked: set[fx.Node] = set()
        self.pooling: list[fx.Node] = []
        self.taboo = _unsuited(model.module)
        for node in self.module.graph.nodes:
            self._take(node)

    def found(self) -> Iterator[Stream]:
        """Yield the streams that nothing stands in the way of."""
        stopped = {self._root(node) for node in self.blocked}
        pooled = {self._root(node) for node in self.pooling}
        makers: dict[fx.Node, list[str]] = {}
        readers: dict[fx.Node, list[str]] = {}
        for node in self.module.graph.nodes:
            if isinstance(layer_of(self.module, node), Layer):
                makers.setdefault(self._root(node), []).append(str(node.target))
                readers.setdefault(self._root(node.args[0]), []).append(str(node.target))
        for root, names in makers.items():
            if root in stopped or root not in readers:
                continue
            stream = Stream(tuple(names), tuple(readers[root]))
            if self._fits(stream, pooled=root in pooled):
                yield stream

    def _take(self, node: fx.Node) -> None:
        self.parent[node] = node
        inputs = node.all_input_nodes
        if isinstance(layer_of(self.module, node), Layer):
            if str(node.target) in self.taboo:
                self.blocked.update((node, *inputs))
        elif len(inputs) == 1 and self._lets_through(node):
            self._join(node, inputs[0])
        elif self._adds(node):
            for value in inputs:
                self._join(node, value)
        else:
            self.blocked.update((node, *inputs))

    def _lets_through(self, node: fx.Node) -> bool:
        """Whether a function of one value scales with it, channel by channel."""
        layer, name = layer_of(self.module, node), operator_name(node)
        if isinstance(layer, _ELEMENTWISE) or name in _ELEMENTWISE_CALLS:
            return True
        self.pooling.append(node)
        if isinstance(layer, _POOLS) or name in _POOLING_CALLS:
            return True
        if name in ("constant_pad_nd", "pad"):
            filled = any(isinstance(value, int | float) and value for value in node.args[2:])
            before, after = self.shapes[node.all_input_nodes[0]], self.shapes[node]
            return not filled and before[:2] == after[:2]
        if name == "flatten":
            return node.args[1:2] == (1,)
        return name == "mean" and _over_positions(node.args[1] if len(node.args) > 1 else ())

    def _adds(self, node: fx.Node) -> bool:
        if operator_name(node) not in _ADDS or node.kwargs or len(node.args) != 2:
            return False
        shapes = [self.shapes.get(value) for value in node.args if isinstance(value, fx.Node)]
        return len(shapes) == 2 and shapes[0] == shapes[1] is not None

    def _fits(self, stream: Stream, *, pooled: bool) -> bool:
        """Whether the channels made are those read, as they are or flattened behind each other."""
        layers = [self.module.get_submodule(name) for name in stream.makers]
        widths = {len(layer.weight) for layer in layers if isinstance(layer, Layer)}
        if len(widths) != 1 or (pooled and any(isinstance(layer, nn.Linear) for layer in layers)):
            return False
        (width,) = widths
        readers = [self.module.get_submodule(name) for name in stream.readers]
        return all(
            reader.in_features % width == 0
            if isinstance(reader, nn.Linear)
            else isinstance(reader, Layer) and reader.in_channels == width
            for reader in readers
        )

    def _root(self, node: object) -> fx.Node:
        if not isinstance(node, fx.Node):
            raise TypeError("a layer reads a value")
        while self.parent[node] is not node:
            node = self.parent[node]
        return node

    def _join(self, a: fx.Node, b: fx.Node) -> None:
        self.parent[self._root(a)] = self._root(b)


def _shapes(model: Model) -> dict[fx.Node, torch.Size]:
    """Return the shape of every value for an example of two samples."""
    shapes: dict[fx.Node, torch.Size] = {}

    class Noting(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                shapes[n] = value.shape
            return value

    with torch.no_grad():
        Noting(model.module).run(*model.example())
    return shapes


def _over_positions(dims: object) -> bool:
    """Whether a mean leaves samples and channels apart."""
    return isinstance(dims, list | tuple) and bool(dims) and set(dims) <= {2, 3, -1, -2}


def _unsuited(module: fx.GraphModule) -> set[str]:
    """Return layers that are called twice or share a weight: a factor would show elsewhere too."""
    users: dict[str, int] = {}
    for node in module.graph.find_nodes(op="call_module"):
        users[str(node.target)] = users.get(str(node.target), 0) + 1
    owners: dict[int, list[str]] = {}
    for name, layer in module.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor):
            owners.setdefault(weight.data_ptr(), []).append(name)
    shared = {name for names in owners.values() if len(names) > 1 for name in names}
    return shared | {name for name, count in users.items() if count > 1}

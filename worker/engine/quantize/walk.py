"""Going through a network in float and in integers side by side, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx

from worker.engine.load.dataset import Dataset
from worker.engine.quantize.nodes import argument, attribute, source
from worker.engine.quantize.pairs import Pair, pairs_of, rounding
from worker.engine.quantize.placement import LINEARS, tail
from worker.engine.quantize.prepared import Prepared

_ELEMENTS = 1 << 25  # of the largest value on the way: 128 MB in each of the two forms

Values = dict[fx.Node, object]


@dataclass(frozen=True)
class Site:
    """One call of a layer on the way.

    Attributes:
        layer: its name.
        node: the call.
        inputs: what the integer side feeds it, rounded: (samples, ...).
        wanted: what the float side computes there.
        compute: the call with other inputs, weight and bias.
        activate: what the runtime fuses behind the call; the identity where nothing is.
    """

    layer: str
    node: fx.Node
    inputs: Tensor
    wanted: Tensor
    compute: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    activate: Callable[[Tensor], Tensor]

    @property
    def channel_dim(self) -> int:
        """Dimension of the outputs that counts output channels."""
        return self.wanted.dim() - 1 if self.node.target in LINEARS else 1


def walk(prepared: Prepared, samples: Dataset, visit: Callable[[Site], None]) -> None:
    """Visit every layer in order; what a visit changes, the layers behind it already see.

    Both sides run once over the same samples, as many as fit in memory. A visit may change the
    weight and the bias of its layer in place; the float side goes on with the old ones.

    Args:
        prepared: its pairs are settled.
        samples: what to run; only the first ones are taken where values are large.
        visit: called at the first call of each layer, under `no_grad`.
    """
    graph = prepared.graph
    count = min(len(samples), _fitting(graph.graph))
    (batch,) = [inputs for inputs, _ in samples.head(count).batches(count)]
    exact, rounded = _constants(graph, copied=True), _constants(graph, copied=False)
    exact |= dict(zip(graph.graph.find_nodes(op="placeholder"), batch, strict=True))
    rounded |= dict(zip(graph.graph.find_nodes(op="placeholder"), batch, strict=True))
    dying = _last_uses(graph.graph)
    seen = set[str]()
    with torch.no_grad(), rounding(pairs_of(graph).values()):
        for node in graph.graph.nodes:
            if node.op in ("call_function", "call_module"):
                exact[node] = _run(graph, node, exact, round_pairs=False)
                layer = prepared.names.get(node.name)
                if layer is not None and layer not in seen:
                    seen.add(layer)
                    visit(_site(layer, node, exact, rounded))
                    weight = source(node, 1)
                    rounded[weight] = _run(graph, weight, rounded, round_pairs=True)
                rounded[node] = _run(graph, node, rounded, round_pairs=True)
            for dead in dying.get(node, ()):
                exact.pop(dead, None)
                rounded.pop(dead, None)


def _site(layer: str, node: fx.Node, exact: Values, rounded: Values) -> Site:
    target = cast("Callable[..., Tensor]", node.target)
    rest = node.args[3:]

    def compute(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return target(inputs, weight, bias, *rest)

    behind = tail(node)
    fused = cast("Callable[..., Tensor]", behind.target)

    def activate(outputs: Tensor) -> Tensor:
        return outputs if behind is node else fused(outputs, *behind.args[1:])

    inputs, wanted = rounded[source(node, 0)], exact[node]
    return Site(layer, node, cast("Tensor", inputs), cast("Tensor", wanted), compute, activate)


def _run(graph: fx.GraphModule, node: fx.Node, values: Values, *, round_pairs: bool) -> object:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)  # type: ignore[arg-type]  # any value, not only nodes
    if node.op == "call_function":
        return cast("Callable[..., object]", node.target)(*args, **kwargs)
    layer = graph.get_submodule(str(node.target))
    return args[0] if isinstance(layer, Pair) and not round_pairs else layer(*args)


def _constants(graph: fx.GraphModule, *, copied: bool) -> Values:
    values: Values = {}
    for node in graph.graph.find_nodes(op="get_attr"):
        value = attribute(graph, str(node.target))
        values[node] = value.clone() if copied and isinstance(value, Tensor) else value
    return values


def _last_uses(graph: fx.Graph) -> Mapping[fx.Node, list[fx.Node]]:
    """Return which values nobody needs after a node; constants stay."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    dying: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op != "get_attr" and node.users:
            dying.setdefault(max(node.users, key=order.__getitem__), []).append(node)
    return dying


def _fitting(graph: fx.Graph) -> int:
    """Return how many samples fit, from the sizes that the export noted for its example of two."""
    largest = 1
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and argument(node, 0) is not None:
            sizes = [int(size) for size in value.shape[1:] if isinstance(size, int)]
            largest = max(largest, math.prod(sizes))
    return max(8, _ELEMENTS // largest)

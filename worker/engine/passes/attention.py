"""Attention calls in a graph."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, fx

from worker.engine.load.attention import Attention
from worker.engine.passes.layers import layer_of, operator_name

ATTENTION = "scaled_dot_product_attention"


def is_attention(module: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a node is scaled dot-product attention, as a layer or as a plain call."""
    return operator_name(node) == ATTENTION or isinstance(layer_of(module, node), Attention)


def attention_shapes(module: fx.GraphModule, example: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return (heads, head size) of the queries, keys and values of each attention call."""
    calls = [n for n in module.graph.nodes if is_attention(module, n)]
    if not calls:
        return []
    recorder = _Recorder(module, {s for n in calls for s in n.all_input_nodes[:3]})
    recorder.run(*example)
    return [(shape[-3], shape[-1]) for shape in recorder.seen if len(shape) > 3]


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, watched: set[fx.Node]) -> None:
        super().__init__(module)
        self._watched = watched
        self.seen: list[tuple[int, ...]] = []

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if n in self._watched and isinstance(result, Tensor):
            self.seen.append(tuple(result.shape))
        return result

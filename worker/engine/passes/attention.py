"""Attention heads: which projections make them, so that heads are only removed whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from worker.engine.load.attention import Attention
from worker.engine.passes.layers import layer_of, layers_before, operator_name
from worker.engine.passes.prune.shape_repair import Shapes, projection_of

ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True)
class Heads:
    """Attention heads of a graph.

    Attributes:
        counts: heads of each query, key and value projection, by layer name.
        fused: projections whose heads cannot be told apart, which must stay as they are.
    """

    counts: dict[str, int]
    fused: tuple[str, ...]


def find_heads(module: fx.GraphModule, shapes: Shapes) -> Heads:
    """Look at the inputs of every attention call, shape (batch, heads, length, head size)."""
    counts: dict[str, int] = {}
    fused: list[str] = []
    for node in module.graph.nodes:
        if not _is_attention(module, node):
            continue
        inputs = [value for value in node.args[:3] if isinstance(value, fx.Node)]
        found = {projection_of(value): shapes[value.name] for value in inputs}
        if _separate(module, found):
            counts.update({str(name): shape[1] for name, shape in found.items()})
        else:
            fused += layers_before(module, inputs)
    return Heads(counts, tuple(dict.fromkeys(fused)))


def _is_attention(module: fx.GraphModule, node: fx.Node) -> bool:
    layer = layer_of(module, node)
    return operator_name(node) == ATTENTION or isinstance(layer, Attention)


def _separate(module: fx.GraphModule, found: dict[str | None, tuple[int, ...]]) -> bool:
    """Tell whether three different linear layers give equally many heads."""
    if len(found) != 3 or None in found:
        return False
    return len({shape[1] for shape in found.values()}) == 1 and all(
        isinstance(layer := module.get_submodule(str(name)), nn.Linear)
        and len(shape) == 4
        and layer.out_features == shape[1] * shape[3]
        for name, shape in found.items()
    )

"""Attention calls in a graph."""

from __future__ import annotations

from torch import fx

from worker.engine.load.attention import Attention
from worker.engine.passes.layers import layer_of, operator_name

ATTENTION = "scaled_dot_product_attention"


def is_attention(module: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a node is scaled dot-product attention, as a layer or as a plain call."""
    return operator_name(node) == ATTENTION or isinstance(layer_of(module, node), Attention)

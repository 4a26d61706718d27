"""Taking blocks out of a graph, and what nobody uses any more with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import fx, nn

from worker.engine.model import Model, keep_persistence
from worker.engine.passes.prune.blocks import Block


def without(module: fx.GraphModule, blocks: Iterable[Block]) -> fx.GraphModule:
    """Return a graph that passes blocks by; layers and weights are shared with the given one.

    Args:
        module: left as it is.
        blocks: found in this very graph; they do not overlap.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    instead = {block.exit: block.entry for block in blocks}
    inside = {node for block in blocks for node in block.nodes}
    for node in module.graph.nodes:
        if node in instead:
            copies[node] = copies[instead[node]]
        elif node not in inside:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    shortened = fx.GraphModule(module, graph)
    graph.eliminate_dead_code()
    graph.lint()
    shortened.recompile()
    return keep_persistence(module, shortened).eval()


def remove_blocks(model: Model, blocks: Iterable[Block]) -> Model:
    """Return the model without blocks and without the layers that only they used.

    Args:
        model: left as it is; the result shares the weights that stay.
        blocks: found in this model's graph.
    """
    module = without(model.module, blocks)
    used = {str(n.target) for n in module.graph.nodes if n.op in ("call_module", "get_attr")}
    _keep_only(module, "", used)
    return model.with_module(module)


def _keep_only(container: nn.Module, path: str, used: Collection[str]) -> None:
    """Delete what no call reads, in place; layers that are called stay whole.

    The containers of a graph module are its own, even where it shares layers with another.
    """
    for name, child in list(container.named_children()):
        place = f"{path}{name}"
        if place in used:
            continue
        if any(target.startswith(f"{place}.") for target in used):
            _keep_only(child, f"{place}.", used)
        else:
            delattr(container, name)
    for name in [*container._parameters, *container._buffers]:
        if f"{path}{name}" not in used:
            delattr(container, name)


def runs(model: Model, batches: Iterable[int] = (1, 3)) -> bool:
    """Tell whether a model takes batches of several sizes."""
    try:
        with torch.no_grad():
            for batch in batches:
                model.module(*model.example(batch))
    except RuntimeError:
        return False
    return True

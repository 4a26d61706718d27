"""Which rule follows the channels through a node, and the walk through a whole graph."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from worker.engine.passes.attention import attention_shapes
from worker.engine.passes.layers import layer_of, operator_name
from worker.engine.passes.prune.channel_flow import Flow, FlowTracer
from worker.engine.passes.prune.channel_layers import follow_layer
from worker.engine.passes.prune.channel_math import MATH
from worker.engine.passes.prune.channel_moves import MOVES
from worker.engine.passes.prune.labels import Axes, unlabelled

RULES = {**MATH, **MOVES}
IS_OUTPUT = "its channels are the model's output"


def trace_flow(module: fx.GraphModule, example: tuple[Tensor, ...]) -> Flow:
    """Follow the channels of a graph.

    Args:
        module: in eval mode; not changed.
        example: inputs of batch 2.
    """
    with torch.no_grad():
        tracer = FlowTracer(module, follow, attention_shapes(module, example))
        tracer.run(*example)
    return tracer.flow


def follow(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | list[Axes] | None:
    """Return the labels of a node's result; None where nothing of it may go.

    Args:
        tracer: holds the labels of the node's inputs.
        node: any node.
        result: its value.
    """
    if node.op == "output":
        tracer.keep_all(node, IS_OUTPUT)
    elif node.op == "get_attr":
        return _stored(tracer, node, result)
    elif node.op == "call_module":
        layer = layer_of(tracer.root, node)
        if layer is not None:
            return follow_layer(tracer, node, layer, result)
    elif node.op == "call_function":
        return _follow_call(tracer, node, result)
    return None


def _stored(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | None:
    """A bare parameter may lose indices along any dimension, if what it meets does."""
    if not isinstance(result, Tensor):
        return None
    path = str(node.target)
    known = tracer.stored(path)
    if known is not None:
        return known
    axes = tuple(
        tracer.labels.fresh(size) if size > 1 else unlabelled((size,))[0] for size in result.shape
    )
    tracer.store(path, axes)
    return axes


def _follow_call(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | list[Axes] | None:
    name = operator_name(node)
    if name == "getitem":
        parts = tracer.parts(node.args[0])
        return parts[int(node.args[1])] if parts else None  # type: ignore[arg-type]
    if name.startswith("sym_"):
        return None
    rule = RULES.get(name) or RULES.get(name.removesuffix("_"))
    if rule is None:
        tracer.keep_all(node, f"channels are not followed through {name}")
        return None
    return rule(tracer, node, result)

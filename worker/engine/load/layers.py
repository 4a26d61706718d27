"""Which `torch.nn` layer an ATen call was."""

from __future__ import annotations

from torch import Tensor, fx
from torch._ops import OpOverload

from worker.engine.load.call import Call, Layer, arguments_of
from worker.engine.load.inplace import name_of
from worker.engine.load.plain import PLAIN
from worker.engine.load.weighted import WEIGHTED

_BUILDERS = {**WEIGHTED, **PLAIN}


def layer_of(node: fx.Node, tensors: dict[fx.Node, Tensor]) -> Layer | None:
    """Return the layer that a call was; None where it is arithmetic or of another form.

    Args:
        node: any node of the graph.
        tensors: the stored weights, by their `get_attr` node.
    """
    build = _BUILDERS.get(name_of(node))
    if build is None or not isinstance(node.target, OpOverload):
        return None
    return build(Call(node, arguments_of(node, node.target), tensors))

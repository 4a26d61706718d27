"""Nodes that hand on what they are given, and nodes that nobody reads."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from planish.contract.report import LayerChanged
from worker.engine.model import Model
from worker.engine.passes.layers import layer_of, operator_name

_COPIES = {"alias", "detach", "clone", "contiguous", "lift_fresh_copy"}
_RESHAPES = {"reshape", "view", "flatten", "expand", "slice"}
_CASTS = {"to", "_to_copy", "type_as"}
_NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Softmax)


def remove_identities(model: Model) -> list[LayerChanged]:
    """Remove what changes nothing at any batch size, in place.

    Whether a reshape, slice or cast changes anything is seen by running the graph at two batch
    sizes; dropout that is on while training is none of these.
    """
    module = model.module
    if _writes_in_place(module):
        # A copy may be there to keep what is written over later.
        return []
    same = set.intersection(*(_Same(module).watch(model.example(batch)) for batch in (2, 3)))
    changed = []
    for node in list(module.graph.nodes):
        if node.name in same and _hands_on(module, node):
            changed.append(LayerChanged(name=_name(node), what="removed: changes nothing"))
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    return changed


def _name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


def _hands_on(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node is of a kind whose equal output means that it does nothing."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or (source.op == "placeholder" and _is_output(node)):
        return False
    layer = layer_of(module, node)
    if layer is None:
        return operator_name(node) in _COPIES | _RESHAPES | _CASTS
    if isinstance(layer, nn.Dropout):
        return layer.p == 0
    if isinstance(layer, nn.ReLU):
        return isinstance(layer_of(module, source), _NEVER_NEGATIVE)
    return isinstance(layer, nn.Identity)


def _is_output(node: fx.Node) -> bool:
    """An input handed out as it is would be one tensor with two names in the saved file."""
    return any(user.op == "output" for user in node.users)


def _writes_in_place(module: fx.GraphModule) -> bool:
    schemas = (getattr(node.target, "_schema", None) for node in module.graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in schemas)


class _Same(fx.Interpreter):
    """Notes which nodes give exactly what they were given."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._found: set[str] = set()

    def watch(self, example: tuple[Tensor, ...]) -> set[str]:
        """Run the graph and return the names of those nodes."""
        with torch.no_grad():
            self.run(*example)
        return self._found

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        source = self.env.get(n.args[0]) if n.args and isinstance(n.args[0], fx.Node) else None
        if isinstance(result, Tensor) and isinstance(source, Tensor) and _equal(result, source):
            self._found.add(n.name)
        return result


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)

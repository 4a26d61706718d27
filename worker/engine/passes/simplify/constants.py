"""What depends on no input is computed once."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from planish.contract.report import LayerChanged
from worker.engine.passes.layers import operator_name
from worker.engine.quantize.nodes import attribute

MAX_GROWTH = 1 << 20
"""Bytes that one folded constant may add to the file."""
_RANDOM = {"dropout", "native_dropout", "feature_dropout", "alpha_dropout", "rand", "randn"}


def fold_constants(module: fx.GraphModule) -> list[LayerChanged]:
    """Compute calls that depend on buffers and literals alone, and keep their results as buffers.

    What depends on a parameter stays: it is still to be trained. So does what would make the file
    more than 1 MiB larger.
    """
    values = _constants(module)
    changed = []
    for node, value in values.items():
        if node.op == "get_attr" or all(user in values for user in node.users):
            continue
        name = f"folded_{node.name}"
        module.register_buffer(name, value, persistent=False)
        with module.graph.inserting_before(node):
            constant = module.graph.get_attr(name)
        constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)
        changed.append(LayerChanged(name=node.name, what=f"{operator_name(node)} computed once"))
    module.graph.eliminate_dead_code()
    return changed


def _constants(module: fx.GraphModule) -> dict[fx.Node, Tensor]:
    """Return the value of each node that no input and no parameter has part in, in graph order."""
    values: dict[fx.Node, Tensor] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            found = attribute(module, str(node.target))
            if isinstance(found, Tensor) and not found.requires_grad and not _written(node):
                values[node] = found
        elif _foldable(node) and all(source in values for source in node.all_input_nodes):
            value = _compute(node, values)
            if value is not None and value.nbytes <= MAX_GROWTH + _read_bytes(node, values):
                values[node] = value
    return values


def _foldable(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return (
        node.op == "call_function"
        and schema is not None
        and not schema.is_mutable
        and operator_name(node) not in _RANDOM
        and not _written(node)
    )


def _written(node: fx.Node) -> bool:
    """Whether anybody writes into the node's value: a stored copy would remember it."""
    schemas = (getattr(user.target, "_schema", None) for user in node.users)
    return any(schema is not None and schema.is_mutable for schema in schemas)


def _compute(node: fx.Node, values: dict[fx.Node, Tensor]) -> Tensor | None:
    args = fx.map_arg(node.args, lambda n: values[n])
    kwargs = fx.map_arg(node.kwargs, lambda n: values[n])
    if not callable(node.target):
        return None
    with torch.no_grad():
        result = node.target(*args, **kwargs)
    # A copy: views of a buffer would be saved with all of it.
    return result.clone().contiguous() if isinstance(result, Tensor) else None


def _read_bytes(node: fx.Node, values: dict[fx.Node, Tensor]) -> int:
    return sum(values[source].nbytes for source in node.all_input_nodes)

"""Typed looks at fx nodes, whose arguments may be anything."""

from __future__ import annotations

from torch import Tensor, fx, nn


def argument(node: fx.Node, index: int) -> fx.Node | None:
    """Return the positional argument `index` if there is one and it is a node."""
    value = node.args[index] if len(node.args) > index else None
    return value if isinstance(value, fx.Node) else None


def source(node: fx.Node, index: int) -> fx.Node:
    """Return the positional argument `index`, which is a node."""
    value = argument(node, index)
    if value is None:
        raise TypeError(f"argument {index} of {node.name} is not computed by a node")
    return value


def attribute(root: nn.Module, path: str) -> object:
    """Return what a ``get_attr`` or ``call_module`` target names."""
    host, _, leaf = path.rpartition(".")
    return getattr(root.get_submodule(host), leaf)


def constant(root: nn.Module, node: fx.Node | None) -> Tensor | None:
    """Return the tensor behind a ``get_attr`` node, None for any other."""
    if node is None or node.op != "get_attr":
        return None
    value = attribute(root, str(node.target))
    return value if isinstance(value, Tensor) else None

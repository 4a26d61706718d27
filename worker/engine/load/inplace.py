"""In-place calls become functional ones, wherever nobody can tell the difference."""

from __future__ import annotations

import torch
from torch import fx
from torch._ops import OpOverload

aten = torch.ops.aten

_ALIASES = """
view reshape _unsafe_view flatten unflatten transpose permute t expand expand_as slice select narrow
squeeze unsqueeze split split_with_sizes chunk unbind alias detach contiguous to movedim diagonal
unfold view_as reshape_as getitem swapaxes swapdims moveaxis
"""
_ALIASING = frozenset(_ALIASES.split())


def name_of(node: fx.Node) -> str:
    """Return the operator's name without namespace and overload, ``conv2d``; empty for others."""
    if node.op != "call_function":
        return ""
    if isinstance(node.target, OpOverload):
        return node.target._schema.name.partition("::")[2]
    return str(getattr(node.target, "__name__", ""))


def drop_batch_counters(graph: fx.Graph) -> None:
    """Erase the ``num_batches_tracked += 1`` of a train-mode export; BatchNorm counts itself."""
    for node in reversed(list(graph.nodes)):
        if name_of(node) == "add_" and not node.users and _is_counter(node.args[0]):
            graph.erase_node(node)


def _is_counter(value: object) -> bool:
    """Tell whether a value is a counter; a layer called twice chains its additions."""
    if not isinstance(value, fx.Node):
        return False
    if value.op == "get_attr":
        return str(value.target).endswith("num_batches_tracked")
    return name_of(value) == "add_" and _is_counter(value.args[0])


def make_functional(graph: fx.Graph) -> None:
    """Replace ``relu_`` by ``relu`` and the like, where the old value has no later reader.

    A call stays in place when it writes to an input, a weight or a view, or when something later
    reads what it overwrites; the graph runs in order, so such a call is right as it is.
    """
    place = {node: index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        functional = _functional_form(node)
        if functional is not None and not _is_observed(node, place):
            node.target = functional


def _functional_form(node: fx.Node) -> OpOverload | None:
    name = name_of(node)
    if not isinstance(node.target, OpOverload) or not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(aten, name[:-1], None)
    overload = node.target._overloadname
    if packet is None or overload not in packet.overloads():
        return None
    form: OpOverload = getattr(packet, overload)
    return form


def _is_observed(node: fx.Node, place: dict[fx.Node, int]) -> bool:
    """Tell whether anything but the call's own result shows that it wrote in place."""
    written = node.args[0] if node.args else None
    if not isinstance(written, fx.Node) or written.op != "call_function":
        return True
    if name_of(written) in _ALIASING:
        return True
    now = place[node]
    return any(
        place[user] > now or (name_of(user) in _ALIASING and _reads_after(user, now, place))
        for user in written.users
        if user is not node
    )


def _reads_after(view: fx.Node, now: int, place: dict[fx.Node, int]) -> bool:
    return any(
        place[user] > now or (name_of(user) in _ALIASING and _reads_after(user, now, place))
        for user in view.users
    )

"""After channels went, nodes still carry the old sizes as constants: write the new ones.

What a size becomes is counted from the labels of the node's own result, never guessed. A size of -1
is no safer than a number: it silently regroups attention heads when the width shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.fx.node import Argument

from worker.engine.passes.layers import operator_name

Shapes = dict[str, tuple[int, ...]]
Kept = tuple[NDArray[np.bool_], ...]
"""Which indices stay, for each dimension of a tensor."""


class CannotRepair(ValueError):
    """A node's new sizes cannot be written as constants; the text says why."""


def record_shapes(module: fx.GraphModule, example: tuple[Tensor, ...]) -> Shapes:
    """Run the graph once and return the shape of each tensor node by its name."""
    recorder = _Recorder(module)
    with torch.no_grad():
        recorder.run(*example)
    return recorder.shapes


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: Shapes = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result


def repair_node(node: fx.Node, before: Kept | None, after: Kept | None, parts: list[Kept]) -> None:
    """Correct the constants of one node in place.

    Args:
        node: of the thinned graph.
        before: which indices stay of its first tensor argument; None where it has none.
        after: the same of its result; None where the result is no single tensor.
        parts: the same of each part of a result that is a list.

    Raises:
        CannotRepair: its arguments are computed, or its parts cannot be said in its own words.
    """
    repair = REPAIRS.get(operator_name(node))
    everything = [*(before or ()), *(after or ())]
    if repair is not None and not all(kept.all() for kept in everything):
        repair(node, before or (), after or (), parts)


def _sizes(node: fx.Node, before: Kept, after: Kept, parts: list[Kept]) -> None:
    """View, reshape, expand, zeros: one size for each dimension of the result."""
    place = next(i for i, value in enumerate(node.args) if isinstance(value, list | tuple))
    _put(node, place, _resized(node.args[place], after))  # type: ignore[arg-type]


def _unflatten(node: fx.Node, before: Kept, after: Kept, parts: list[Kept]) -> None:
    dim = _whole(node.args[1]) % len(before)
    sizes: Sequence[Argument] = node.args[2]  # type: ignore[assignment]
    _put(node, 2, _resized(sizes, after[dim : dim + len(sizes)]))


def _resized(sizes: Sequence[Argument], after: Kept) -> list[Argument]:
    new = list(sizes)
    for place, kept in enumerate(after):
        if kept.all() or new[place] == -1:
            continue
        if isinstance(new[place], int):
            new[place] = int(kept.sum())
        elif -1 not in new:
            new[place] = -1  # computed from the number of samples: let the others say it
        else:
            raise CannotRepair("a view's size is computed from its channels")
    return new


def _slice(node: fx.Node, before: Kept, after: Kept, parts: list[Kept]) -> None:
    args = [*node.args, *(0, None, None)[len(node.args) - 1 :]]
    dim = _whole(args[1] or 0) % len(before)
    kept = before[dim]
    if kept.all():
        return
    start, end, _ = slice(_maybe(args[2]), _maybe(args[3])).indices(len(kept))
    args[1:4] = [dim, int(kept[:start].sum()), int(kept[: max(start, end)].sum())]
    node.args = tuple(args)


def _narrow(node: fx.Node, before: Kept, after: Kept, parts: list[Kept]) -> None:
    dim, start, length = (_whole(value) for value in node.args[1:4])
    kept, start = before[dim], start % len(before[dim])
    new = (int(kept[:start].sum()), int(kept[start : start + length].sum()))
    node.args = (node.args[0], dim, *new)


def _split(node: fx.Node, before: Kept, after: Kept, parts: list[Kept]) -> None:
    dim = _whole(node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0))
    if before[dim % len(before)].all():
        return
    node.target = torch.ops.aten.split_with_sizes.default
    node.args = (node.args[0], [int(part[dim].sum()) for part in parts], dim)
    node.kwargs = {}


def _pad(node: fx.Node, before: Kept, after: Kept, parts: list[Kept]) -> None:
    amounts = list(node.args[1])  # type: ignore[arg-type]
    for place in range(len(amounts) // 2):
        left = _whole(amounts[2 * place])
        inside, kept = before[-1 - place], after[-1 - place]
        if len(inside) == len(kept) or not kept.all():
            amounts[2 * place] = int(kept[:left].sum())
            amounts[2 * place + 1] = int(kept[left + len(inside) :].sum())
    _put(node, 1, amounts)


def _put(node: fx.Node, place: int, value: Argument) -> None:
    node.args = (*node.args[:place], value, *node.args[place + 1 :])


def _whole(value: Argument) -> int:
    if not isinstance(value, int):
        raise CannotRepair("a size is computed while the graph runs")
    return value


def _maybe(value: Argument) -> int | None:
    return None if value is None else _whole(value)


Repair = Callable[[fx.Node, Kept, Kept, list[Kept]], None]
_SIZED = """
view reshape _unsafe_view _reshape_copy expand broadcast_to zeros ones full new_zeros new_ones
new_full
"""
REPAIRS: dict[str, Repair] = {
    **dict.fromkeys(
        _SIZED.split(),
        _sizes,
    ),
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    "unflatten": _unflatten,
    "slice": _slice,
    "narrow": _narrow,
}
"""How the constants of an operator are corrected, by its name."""

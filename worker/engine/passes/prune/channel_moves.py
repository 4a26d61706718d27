"""How channels flow through operators that only move values: views, slices, concatenations.

Where an index comes from is seen by running the operator on the indices themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx

from worker.engine.load.call import arguments_of
from worker.engine.passes.layers import operator_name
from worker.engine.passes.prune.channel_flow import FlowTracer, Shape
from worker.engine.passes.prune.channel_math import Rule
from worker.engine.passes.prune.labels import Axes, Axis, unlabelled

STACKED = 3
"""Up to so many parts of one projection (query, key, value) lie beside each other."""
PICKED = "single channels of it are picked out"


def moved(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | list[Axes] | None:
    """Follow any operator that moves the values of its first argument."""
    axes = tracer.axes(node.args[0])
    if axes is None:
        return None
    parts = [result] if isinstance(result, Tensor) else list(result)  # type: ignore[call-overload]
    found = [list(unlabelled(tuple(part.shape))) for part in parts]
    for dim, axis in enumerate(axes):
        if not axis.any():
            continue
        for out, indices in zip(found, _indices(tracer, node, dim, len(parts)), strict=True):
            _place(tracer, out, axis, indices)
    moved_axes = [tuple(out) for out in found]
    return moved_axes[0] if isinstance(result, Tensor) else moved_axes


def _indices(tracer: FlowTracer, node: fx.Node, dim: int, parts: int) -> list[Tensor]:
    """Return, for each value of the result, its index along `dim` of the first argument."""
    source = node.args[0]
    if not isinstance(source, fx.Node) or not callable(node.target):
        raise TypeError(f"{node.name} moves no tensor")
    shape = tracer.shape(source)
    places = torch.arange(shape[dim]).reshape(-1, *[1] * (len(shape) - dim - 1))
    args, kwargs = tracer.fetch_args_kwargs_from_env(node)
    result = node.target(places.expand(shape).contiguous(), *args[1:], **kwargs)
    return [result] if parts == 1 and isinstance(result, Tensor) else list(result)


def _place(tracer: FlowTracer, out: list[Axis], axis: Axis, indices: Tensor) -> None:
    """Write the labels of one dimension of a source to the dimension of the result it became."""
    values = torch.from_numpy(tracer.labels.root(axis))[indices]
    varying = [dim for dim in range(values.dim()) if _varies(values, dim)]
    if not varying:
        if indices.numel():
            tracer.labels.keep(axis, PICKED)
        return
    chosen = _unit_dim(tracer, tuple(values.shape), varying)
    rows = values.movedim(chosen, 0).reshape(values.shape[chosen], -1).numpy()
    for column in np.unique(rows, axis=1).T if len(varying) > 1 else ():
        tracer.labels.join(rows[:, 0], column)
    if out[chosen].any():
        tracer.labels.keep(rows[:, 0], "a view merges its channels with others")
        tracer.labels.keep(out[chosen], "a view merges its channels with others")
    out[chosen] = rows[:, 0].copy()


def _varies(values: Tensor, dim: int) -> bool:
    return values.shape[dim] > 1 and not torch.equal(
        values, values.narrow(dim, 0, 1).expand_as(values)
    )


def _unit_dim(tracer: FlowTracer, shape: Shape, varying: Sequence[int]) -> int:
    """Return which of the dimensions that channels are split into they go along.

    Whole heads go where the sizes are those of an attention call; else the outermost dimension,
    unless it only stacks two or three parts (query, key and value; the two halves of a gate).
    """
    for dim, after in itertools.pairwise(varying):
        if any(_are_heads(shape[dim], shape[after], *known) for known in tracer.flow.heads):
            return dim
    if shape[varying[0]] > STACKED:
        return varying[0]
    return max(varying, key=lambda dim: shape[dim])


def _are_heads(count: int, size: int, heads: int, width: int) -> bool:
    """Tell whether two sizes are heads of an attention call and what one holds.

    Several samples' heads may lie side by side, keys may have fewer, and one head may hold query,
    key and value.
    """
    return (count % heads == 0 and size % width == 0) or (heads % count == 0 and size == width)


def indexed(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | list[Axes] | None:
    """Follow a look-up: the dimensions that indices stand for stay."""
    axes, places = tracer.axes(node.args[0]), node.args[1]
    if not isinstance(places, list | tuple):
        return picked(tracer, node, result)
    for source in node.all_input_nodes[1:]:
        for axis in tracer.axes(source) or ():
            tracer.labels.keep(axis, PICKED)
    for axis, place in zip(axes or (), places, strict=False):
        if place is not None:
            tracer.labels.keep(axis, PICKED)
    return moved(tracer, node, result)


def joined(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | None:
    """Follow a concatenation."""
    sources = node.args[0]
    parts = [tracer.axes(s) for s in sources]  # type: ignore[union-attr]
    known = [axes for axes in parts if axes is not None]
    if not isinstance(result, Tensor) or not known or len(known) < len(parts):
        tracer.keep_all(node, "channels are not followed through cat")
        return None
    dim = _given(node, "dim", 0) % result.dim()
    known = [axes for axes in known if len(axes) == result.dim()]  # an old empty tensor may join
    out = list(known[0])
    for axes in known[1:]:
        for d in range(result.dim()):
            if d != dim:
                tracer.labels.join(out[d], axes[d])
                out[d] = out[d] if out[d].any() else axes[d]
    out[dim] = np.concatenate([axes[dim] for axes in known])
    return tuple(out)


def padded(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | None:
    """Follow padding by a constant: what is added at an index may go with what it meets."""
    axes = tracer.axes(node.args[0])
    if axes is None or not isinstance(result, Tensor):
        return None
    amounts = [int(a) for a in node.args[1] if isinstance(a, int)]  # type: ignore[union-attr]
    mode = node.args[2] if operator_name(node) == "pad" and len(node.args) > 2 else "constant"
    out = list(axes)
    for place in range(len(amounts) // 2):
        dim = len(axes) - 1 - place
        before, after = amounts[2 * place : 2 * place + 2]
        if not (before or after):
            continue
        if not axes[dim].any():
            out[dim] = unlabelled((result.shape[dim],))[0]
        elif min(before, after) < 0 or mode != "constant":
            tracer.labels.keep(axes[dim], "padding repeats or cuts its channels")
            out[dim] = unlabelled((result.shape[dim],))[0]
        else:
            fresh = tracer.labels.fresh
            out[dim] = np.concatenate([fresh(before), axes[dim], fresh(after)])
    return tuple(out)


def cut_out(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | list[Axes] | None:
    """Follow a slice; channels taken in larger steps stay."""
    axes = tracer.axes(node.args[0])
    dim = _given(node, "dim", 0)
    if axes is not None and _given(node, "step", 1) != 1:
        tracer.labels.keep(axes[dim], "every second of its channels is taken")
    return moved(tracer, node, result)


def picked(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | list[Axes] | None:
    """Follow an operator that names single indices along one dimension, which stay."""
    axes = tracer.axes(node.args[0])
    if axes is not None:
        dims = _given(node, "dims", None) or [_given(node, "dim", 0)]
        for dim in dims if isinstance(dims, list | tuple) else [dims]:
            tracer.labels.keep(axes[dim], PICKED)
    return moved(tracer, node, result)


def created(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | None:
    """A constant tensor of given sizes may lose indices with what it meets."""
    if not isinstance(result, Tensor) or not any(isinstance(a, list | tuple) for a in node.args):
        return None
    fixed = unlabelled(tuple(result.shape))
    return tuple(axis if len(axis) == 1 else tracer.labels.fresh(len(axis)) for axis in fixed)


def _given(node: fx.Node, name: str, default: int | None) -> int:
    value = arguments_of(node, node.target).get(name)  # type: ignore[arg-type]
    return default if value is None else value  # type: ignore[return-value]


_MOVING = """
view reshape _unsafe_view _reshape_copy flatten unflatten permute transpose t expand squeeze
unsqueeze repeat repeat_interleave movedim moveaxis swapaxes swapdims broadcast_to pixel_shuffle
pixel_unshuffle split split_with_sizes chunk tile expand_as reshape_as view_as
"""
MOVES: dict[str, Rule] = {
    **dict.fromkeys(
        _MOVING.split(),
        moved,
    ),
    **dict.fromkeys(("select", "unbind", "roll", "flip"), picked),
    **dict.fromkeys(("slice", "narrow"), cut_out),
    **dict.fromkeys(("pad", "constant_pad_nd"), padded),
    **dict.fromkeys(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full"), created),
    "cat": joined,
    "index": indexed,
}
"""What is known of moving values, by operator name."""

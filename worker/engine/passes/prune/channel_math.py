"""How channels flow through arithmetic: what meets elementwise goes together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor, fx
from torch._ops import OpOverload

from worker.engine.load.call import arguments_of
from worker.engine.passes.layers import operator_name
from worker.engine.passes.prune.channel_flow import FlowTracer
from worker.engine.passes.prune.labels import Axes, unlabelled

Rule = Callable[[FlowTracer, fx.Node, object], Axes | list[Axes] | None]

POINTWISE = """
relu relu6 hardtanh hardswish hardsigmoid leaky_relu elu celu selu silu gelu mish sigmoid
log_sigmoid tanh softplus hardshrink softshrink threshold dropout native_dropout alpha_dropout
add sub mul div rsub neg reciprocal floor_divide remainder fmod pow square sqrt rsqrt exp expm1 log
log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh asinh acosh atanh erf erfc abs sign
floor ceil round trunc frac clamp clamp_min clamp_max maximum minimum lerp addcmul addcdiv
nan_to_num isnan isinf isfinite eq ne lt le gt ge logical_and logical_or logical_not logical_xor
bitwise_and bitwise_or bitwise_not bitwise_xor __and__ __or__ where masked_fill contiguous clone
detach alias lift_fresh_copy to _to_copy type_as zeros_like ones_like full_like copy fill zero
"""
SQUARES = {"pow", "square"}


def elementwise(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | None:
    """Join the labels of tensors that meet at each index, by the rules of broadcasting."""
    if not isinstance(result, Tensor):
        tracer.keep_all(node, f"channels are not followed through {operator_name(node)}")
        return None
    sources = [axes for s in node.all_input_nodes if (axes := tracer.axes(s)) is not None]
    return broadcast(tracer, sources, tuple(result.shape))


def broadcast(tracer: FlowTracer, sources: list[Axes], shape: tuple[int, ...]) -> Axes:
    """Return the labels of a result of `shape` in which tensors meet index by index."""
    out = list(unlabelled(shape))
    for dim, size in enumerate(shape):
        meeting = [a[dim - len(shape)] for a in sources if len(a) >= len(shape) - dim]
        meeting = [axis for axis in meeting if len(axis) == size]
        for axis in meeting[1:]:
            tracer.labels.join(meeting[0], axis)
        out[dim] = next((axis for axis in meeting if axis.any()), out[dim])
    return tuple(out)


def attention(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | None:
    """Tie the heads of queries, keys and values, of which there may be fewer; sizes stay."""
    found = [tracer.axes(value) for value in node.args[:4]]
    q, k, v = found[:3]
    if q is None or k is None or v is None or not isinstance(result, Tensor):
        return None
    for axis in (q[-1], k[-1], k[-2], v[-2]):
        tracer.labels.keep(axis, "attention compares positions over all channels of a head")
    lead = q[:-2]
    for other in (k[:-2], v[:-2]):
        _tie_batches(tracer, lead, other)
    mask = found[3] if len(found) > 3 else None
    if mask is not None:
        _tie_batches(tracer, lead, mask[:-2])
    return (*lead, q[-2], v[-1])


def _tie_batches(tracer: FlowTracer, lead: Axes, other: Axes) -> None:
    for one, axis in zip(reversed(lead), reversed(other), strict=False):
        if len(axis) > 1 and len(one) % len(axis) == 0:
            tracer.labels.join(one, np.repeat(axis, len(one) // len(axis)))


def product(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | None:
    """Follow a batched matrix product; what it sums over goes from both factors."""
    factors = node.args[1:3] if operator_name(node) == "addmm" else node.args[:2]
    a, b = (tracer.axes(value) for value in factors)
    if a is None or b is None or len(a) < 2 or len(b) < 2 or not isinstance(result, Tensor):
        tracer.keep_all(node, "a matrix product mixes its channels")
        return None
    tracer.labels.join(a[-1], b[-2])
    tracer.flow.products[node.name] = str(factors[0])
    lead = broadcast(tracer, [a[:-2], b[:-2]], tuple(result.shape[:-2]))
    axes = (*lead, a[-2], b[-1])
    if operator_name(node) == "addmm":
        return broadcast(tracer, [axes, tracer.axes(node.args[0]) or ()], tuple(result.shape))
    return axes


def mixing(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | None:
    """Follow an operator that mixes the values along one dimension, whose channels stay."""
    axes = tracer.axes(node.args[0])
    if axes is None or not isinstance(result, Tensor) or len(axes) != result.dim():
        tracer.keep_all(node, f"{operator_name(node)} mixes its channels")
        return None
    tracer.labels.keep(axes[_dim(node)], f"{operator_name(node)} mixes its channels")
    return axes


def reduction(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | None:
    """Follow a sum, mean or extreme over some dimensions; channels it runs over stay.

    The mean of squares of a root mean square normalization is the exception: like a LayerNorm, it
    normalizes what is left.
    """
    axes = tracer.axes(node.args[0])
    if axes is None or not isinstance(result, Tensor):
        tracer.keep_all(node, f"{operator_name(node)} mixes its channels")
        return None
    given = _arguments(node)
    dims = given.get("dim")
    dims = [dims] if isinstance(dims, int) else list(dims or range(len(axes)))
    gone = {dim % len(axes) for dim in dims}
    for dim in sorted(gone):
        if operator_name(node) == "mean" and len(gone) == 1 and _of_squares(node):
            tracer.flow.means[node.name] = dim
        else:
            tracer.labels.keep(axes[dim], f"a {operator_name(node)} runs over its channels")
    kept = given.get("keepdim", False)
    one = unlabelled((1,))[0]
    out = [one if d in gone else axis for d, axis in enumerate(axes) if kept or d not in gone]
    return tuple(out)


def gated(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | None:
    """Follow ``a * sigmoid(b)`` of two halves: a channel goes from both."""
    axes = tracer.axes(node.args[0])
    if axes is None or not isinstance(result, Tensor):
        return None
    dim = _dim(node) % len(axes)
    halves = np.split(axes[dim], 2)
    tracer.labels.join(halves[0], halves[1])
    return (*axes[:dim], halves[0], *axes[dim + 1 :])


def pooling(tracer: FlowTracer, node: fx.Node, result: object) -> Axes | None:
    """Follow an operator that changes places in an image and treats channels alike."""
    axes = tracer.axes(node.args[0])
    if axes is None or not isinstance(result, Tensor) or len(axes) != result.dim():
        tracer.keep_all(node, f"channels are not followed through {operator_name(node)}")
        return None
    places = _PLACES[operator_name(node)]
    for axis in axes[-places:]:
        tracer.labels.keep(axis, "they are places of an image")
    return (*axes[:-places], *unlabelled(tuple(result.shape[-places:])))


def _of_squares(node: fx.Node) -> bool:
    source = node.args[0]
    while isinstance(source, fx.Node) and operator_name(source) in ("to", "_to_copy"):
        source = source.args[0]
    if not isinstance(source, fx.Node):
        return False
    name = operator_name(source)
    return name in SQUARES or (name == "mul" and source.args[0] is source.args[1])


def _dim(node: fx.Node) -> int:
    dim = _arguments(node).get("dim", -1)
    return dim if isinstance(dim, int) else -1


def _arguments(node: fx.Node) -> dict[str, int | list[int] | bool]:
    return arguments_of(node, node.target) if isinstance(node.target, OpOverload) else {}


_PLACES = {
    **{f"{kind}_pool{n}d": n for kind in ("max", "avg", "adaptive_avg") for n in (1, 2, 3)},
    **{f"upsample_{kind}": n for kind, n in (
        ("nearest1d", 1), ("linear1d", 1), ("nearest2d", 2), ("bilinear2d", 2), ("bicubic2d", 2),
    )},
    "_adaptive_avg_pool2d": 2, "reflection_pad1d": 1, "reflection_pad2d": 2,
    "replication_pad1d": 1, "replication_pad2d": 2,
}  # fmt: skip

MATH: dict[str, Rule] = {
    **dict.fromkeys(POINTWISE.split(), elementwise),
    **dict.fromkeys(("matmul", "bmm", "mm", "addmm"), product),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum"), mixing),
    **dict.fromkeys(
        ("mean", "sum", "amax", "amin", "var", "std", "prod", "logsumexp", "argmax", "any", "all"),
        reduction,
    ),
    **dict.fromkeys(_PLACES, pooling),
    "scaled_dot_product_attention": attention,
    "glu": gated,
}
"""What is known of arithmetic, by operator name."""

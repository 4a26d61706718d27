"""The operators that a model may call, by name. What is not in the table is refused.

The table holds arithmetic on tensors alone: nothing that reads files, runs code, or shows memory
that was never written.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from planish.contract.errors import OperatorNotAllowed

_LAYERS = """
conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d linear addmm mm
bmm matmul baddbmm mv dot outer einsum batch_norm _native_batch_norm_legit_no_training layer_norm
native_layer_norm group_norm native_group_norm instance_norm rms_norm _fused_rms_norm embedding lstm
gru scaled_dot_product_attention _weight_norm _weight_norm_interface local_response_norm
"""
_ACTIVATIONS = """
dropout dropout_ feature_dropout native_dropout alpha_dropout relu relu_ relu6 relu6_ hardtanh
hardtanh_ hardswish hardswish_ hardsigmoid hardsigmoid_ leaky_relu leaky_relu_ elu elu_ celu selu
selu_ prelu silu silu_ gelu mish mish_ glu sigmoid sigmoid_ log_sigmoid tanh tanh_ softmax _softmax
log_softmax _log_softmax softplus hardshrink softshrink threshold threshold_
"""
_POOLING = """
max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d adaptive_max_pool1d
adaptive_max_pool2d upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_linear1d
upsample_bicubic2d pixel_shuffle pixel_unshuffle channel_shuffle grid_sampler im2col col2im
"""
_ARITHMETIC = """
add add_ sub sub_ mul mul_ div div_ rsub neg neg_ reciprocal floor_divide remainder fmod pow pow_
square sqrt sqrt_ rsqrt exp exp_ expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh
cosh asinh acosh atanh erf erfc abs abs_ sign floor ceil round trunc frac clamp clamp_ clamp_min
clamp_min_ clamp_max clamp_max_ maximum minimum lerp addcmul addcdiv nan_to_num isnan isinf isfinite
eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not
bitwise_xor __and__ __or__ __lshift__ __rshift__ where
"""
_REDUCTIONS = """
mean sum prod amax amin aminmax argmax argmin max min var std var_mean std_mean any all norm
linalg_vector_norm logsumexp cumsum cumprod topk sort argsort diff
"""
_SHAPES = """
cat stack split split_with_sizes chunk unbind slice slice_scatter select_scatter select index
index_select index_put index_put_ gather scatter scatter_add masked_fill masked_fill_ fill fill_
zero_ narrow view reshape _unsafe_view _reshape_copy view_as reshape_as flatten unflatten permute
transpose transpose_ t expand expand_as squeeze squeeze_ unsqueeze unsqueeze_ contiguous clone
detach detach_ alias lift_fresh_copy repeat repeat_interleave tile flip roll rot90 pad
constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d tril triu
movedim moveaxis swapaxes swapdims meshgrid broadcast_to broadcast_tensors unfold one_hot diagonal
diag_embed hstack vstack dstack
"""
_CREATION = """
arange linspace zeros ones full eye zeros_like ones_like full_like new_zeros new_ones new_full
scalar_tensor to _to_copy type_as copy_ copy
"""
_SIZES = """
sym_size sym_numel sym_stride _assert_tensor_metadata _assert_scalar sym_constrain_range
sym_constrain_range_for_size
"""
GROUPS = {
    "layers": _LAYERS,
    "activations": _ACTIVATIONS,
    "pooling, resizing": _POOLING,
    "arithmetic, comparison": _ARITHMETIC,
    "reductions, sorting": _REDUCTIONS,
    "shapes, indexing": _SHAPES,
    "creation, conversion": _CREATION,
    "sizes, checks": _SIZES,
}
"""The operators of ``torch.ops.aten`` by what they are for; docs/formats.md has the same table."""
ATEN = frozenset(name for group in GROUPS.values() for name in group.split())
QUANTIZED = frozenset(
    f"{verb}_per_{unit}" for verb in ("quantize", "dequantize") for unit in ("tensor", "channel")
)
SIZE_ARITHMETIC = frozenset(
    (
        "math.trunc",
        *(f"torch.sym_{name}" for name in ("max", "min", "not", "float")),
        *(
            f"_operator.{name}"
            for name in (
                *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow"),
                *("eq", "ne", "lt", "le", "gt", "ge"),
            )
        ),
    )
)
# Regions without gradients; their body is put into the graph itself.
REGIONS = frozenset(
    f"torch.ops.higher_order.wrap_with_{name}" for name in ("set_grad_enabled", "autocast")
)
_NAME = re.compile(r"torch\.ops\.(aten|quantized_decomposed)\.(\w{1,64})\.(\w{1,64})", re.ASCII)


def split_target(target: str, place: Callable[[], str]) -> tuple[str, str, str]:
    """Return namespace, name and overload of a tensor operator.

    Args:
        target: as the file spells it, ``torch.ops.aten.conv2d.default``.
        place: says where in the model the call stands, for the error text.

    Raises:
        OperatorNotAllowed: not in the table.
    """
    match = _NAME.fullmatch(target)
    if match is None or match[2] not in (ATEN if match[1] == "aten" else QUANTIZED):
        raise refused(target, place)
    return match[1], match[2], match[3]


def refused(target: str, place: Callable[[], str]) -> OperatorNotAllowed:
    """Return the error that names an operator, its layer and line, and what to do."""
    name = target.removeprefix("torch.ops.")[:120]
    where = place()
    if "higher_order" in target:
        why = "control flow and nested graphs cannot be optimized"
        advice = "write this part without torch.cond, loops over tensors or autocast"
    elif not target.startswith("torch.ops.aten."):
        why = "it belongs to an extension, whose code is not taken"
        advice = "write this part with the operators of torch.nn"
    else:
        why = "it is not supported"
        advice = "write this part with other operators of torch.nn"
    return OperatorNotAllowed(
        f"the model calls {name!r}{where}: {why}; {advice}, and export the model again"
    )

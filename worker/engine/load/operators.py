"""The operators that a graph may call: a table, never a walk through torch's attributes."""

from __future__ import annotations

import importlib
import math
import operator
import re
from collections.abc import Callable

import torch
from torch._ops import OpOverload

from planish.contract.errors import OperatorNotAllowed

Target = OpOverload | Callable[..., object]

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
_GROUPS = (
    _LAYERS,
    _ACTIVATIONS,
    _POOLING,
    _ARITHMETIC,
    _REDUCTIONS,
    _SHAPES,
    _CREATION,
    _SIZES,
)
ATEN = frozenset(name for group in _GROUPS for name in group.split())
QUANTIZED = frozenset(
    f"{verb}_per_{unit}" for verb in ("quantize", "dequantize") for unit in ("tensor", "channel")
)
_SYMBOLIC: dict[str, Callable[..., object]] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.truediv": operator.truediv,
    "_operator.mod": operator.mod,
    "_operator.neg": operator.neg,
    "_operator.pow": operator.pow,
    "_operator.eq": operator.eq,
    "_operator.ne": operator.ne,
    "_operator.lt": operator.lt,
    "_operator.le": operator.le,
    "_operator.gt": operator.gt,
    "_operator.ge": operator.ge,
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
    "torch.sym_not": torch.sym_not,
    "torch.sym_float": torch.sym_float,
    "math.trunc": math.trunc,
}
_NAME = re.compile(r"torch\.ops\.(aten|quantized_decomposed)\.(\w{1,64})\.(\w{1,64})", re.ASCII)


def resolve(target: str, layer: str) -> Target:
    """Return the function that a node's target names.

    Args:
        target: as the file spells it, ``torch.ops.aten.conv2d.default``.
        layer: where in the model the call stands, for the error text.

    Raises:
        OperatorNotAllowed: not in the table.
    """
    if target in _SYMBOLIC:
        return _SYMBOLIC[target]
    match = _NAME.fullmatch(target)
    if match is None:
        raise _refused(target, layer)
    namespace, name, overload = match.groups()
    if name not in (ATEN if namespace == "aten" else QUANTIZED):
        raise _refused(target, layer)
    if namespace == "quantized_decomposed":
        importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers them
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if packet is None or overload not in packet.overloads():
        raise _refused(target, layer)
    function: OpOverload = getattr(packet, overload)
    writes_in_place = name.endswith("_") and not name.endswith("__")
    if function._schema.is_mutable and not writes_in_place:
        raise _refused(target, layer)
    return function


def _refused(target: str, layer: str) -> OperatorNotAllowed:
    name = target.removeprefix("torch.ops.")[:120]
    place = f" in layer {layer!r}" if layer else ""
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
        f"the model calls {name!r}{place}: {why}; {advice}, and export the model again"
    )

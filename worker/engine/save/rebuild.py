"""Rebuild a network from architecture.json and model.safetensors, with torch and safetensors alone.

    from rebuild import rebuild

    network = rebuild("architecture.json")      # a torch.nn.Module in eval mode
    network(images)

The description is data: layers of `torch.nn` by name with their options, and the calls between them
by name from a table. Nothing in it is evaluated, executed or unpickled. The result trains, exports
and compiles like any other module; its state_dict has the names of the file.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FORMAT = "planish.graph"
VERSION = 1
DEVICE = "device:"
MAX_BYTES = 64 << 20

_CONVOLUTION = "in_channels out_channels kernel_size stride padding dilation groups bias"
_NORM = "num_features eps momentum affine track_running_stats"
_POOL = "kernel_size stride padding ceil_mode"
LAYERS: dict[str, tuple[str, ...]] = {
    name: tuple(options.split())
    for names, options in (
        ("Conv1d Conv2d Conv3d", _CONVOLUTION),
        ("ConvTranspose1d ConvTranspose2d ConvTranspose3d", f"{_CONVOLUTION} output_padding"),
        ("Linear", "in_features out_features bias"),
        ("BatchNorm1d BatchNorm2d BatchNorm3d", _NORM),
        ("LayerNorm", "normalized_shape eps elementwise_affine bias"),
        ("RMSNorm", "normalized_shape eps elementwise_affine"),
        ("GroupNorm", "num_groups num_channels eps affine"),
        ("Embedding", "num_embeddings embedding_dim padding_idx"),
        ("PReLU", "num_parameters"),
        ("ReLU ReLU6 Hardswish Hardsigmoid SiLU Sigmoid Tanh Mish", ""),
        ("GELU", "approximate"),
        ("LeakyReLU", "negative_slope"),
        ("Hardtanh", "min_val max_val"),
        ("ELU", "alpha"),
        ("Dropout Dropout1d Dropout2d Dropout3d AlphaDropout", "p"),
        ("MaxPool2d", f"{_POOL} dilation"),
        ("AvgPool2d", f"{_POOL} count_include_pad divisor_override"),
        ("AdaptiveAvgPool2d", "output_size"),
        ("Attention", "dropout causal scale grouped"),
    )
    for name in names.split()
}
"""Layers that a description may name, and their options."""

_ATEN = """
__and__ __lshift__ __or__ __rshift__ _adaptive_avg_pool2d _assert_scalar _assert_tensor_metadata
_fused_rms_norm _log_softmax _native_batch_norm_legit_no_training _reshape_copy _softmax _to_copy
_unsafe_view _weight_norm _weight_norm_interface abs abs_ acos acosh adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d add add_ addcdiv
addcmul addmm alias all alpha_dropout amax amin aminmax any arange argmax argmin argsort asin asinh
atan atan2 atanh avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bitwise_and bitwise_not
bitwise_or bitwise_xor bmm broadcast_tensors broadcast_to cat ceil celu channel_shuffle chunk clamp
clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clone col2im constant_pad_nd contiguous conv1d
conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution copy copy_ cos cosh
cumprod cumsum detach detach_ diag_embed diagonal diff div div_ dot dropout dropout_ dstack einsum
elu elu_ embedding eq erf erfc exp exp_ expand expand_as expm1 eye feature_dropout fill fill_
flatten flip floor floor_divide fmod frac full full_like gather ge gelu glu grid_sampler group_norm
gru gt hardshrink hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ hstack im2col
index index_put index_put_ index_select instance_norm isfinite isinf isnan layer_norm le leaky_relu
leaky_relu_ lerp lift_fresh_copy linalg_vector_norm linear linspace local_response_norm log log10
log1p log2 log_sigmoid log_softmax logical_and logical_not logical_or logical_xor logsumexp lstm lt
masked_fill masked_fill_ matmul max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d
maximum mean meshgrid min minimum mish mish_ mm moveaxis movedim mul mul_ mv nan_to_num narrow
native_dropout native_group_norm native_layer_norm ne neg neg_ new_full new_ones new_zeros norm
one_hot ones ones_like outer pad permute pixel_shuffle pixel_unshuffle pow pow_ prelu prod
reciprocal reflection_pad1d reflection_pad2d relu relu6 relu6_ relu_ remainder repeat
repeat_interleave replication_pad1d replication_pad2d reshape reshape_as rms_norm roll rot90 round
rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add select select_scatter
selu selu_ sigmoid sigmoid_ sign silu silu_ sin sinh slice slice_scatter softmax softplus
softshrink sort split split_with_sizes sqrt sqrt_ square squeeze squeeze_ stack std std_mean sub
sub_ sum swapaxes swapdims sym_constrain_range sym_constrain_range_for_size sym_numel sym_size
sym_stride t tan tanh tanh_ threshold threshold_ tile to topk transpose transpose_ tril triu trunc
type_as unbind unflatten unfold unsqueeze unsqueeze_ upsample_bicubic2d upsample_bilinear2d
upsample_linear1d upsample_nearest1d upsample_nearest2d var var_mean view view_as vstack where
zero_ zeros zeros_like
"""
OPERATORS = frozenset(_ATEN.split())
"""Functions of ``torch.ops.aten`` that a description may call: arithmetic on tensors."""

QUANTIZED = frozenset(
    f"{verb}_per_{unit}" for verb in ("quantize", "dequantize") for unit in ("tensor", "channel")
)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "getitem": operator.getitem,
    "math.trunc": math.trunc,
    **{f"torch.{n}": getattr(torch, n) for n in ("sym_max", "sym_min", "sym_not", "sym_float")},
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow"),
            *("eq", "ne", "lt", "le", "gt", "ge"),
        )
    },
}
"""Arithmetic on sizes, and the choice of one of several results."""

_PATH = re.compile(r"\w{1,200}(\.\w{1,200}){0,50}", re.ASCII)
_DTYPES = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64"
_MEMORY_FORMATS = "contiguous_format channels_last channels_last_3d preserve_format"
_CONSTANTS = {
    "dtype": _DTYPES.split(),
    "memory_format": _MEMORY_FORMATS.split(),
    "layout": ["strided"],
}
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


class DescriptionError(ValueError):
    """The description is damaged, of another version, or names what is not in the tables."""


class Attention(nn.Module):
    """``softmax(q kᵀ · scale + mask) v``; its dropout obeys `train` and `eval`."""

    def __init__(
        self,
        dropout: float = 0.0,
        causal: bool = False,
        scale: float | None = None,
        grouped: bool = False,
    ) -> None:
        """Take what stays the same in every call."""
        super().__init__()
        self.dropout, self.causal, self.scale, self.grouped = dropout, causal, scale, grouped

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (N, heads, T, width) of q, k and v of that form."""
        rate = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(
            q, k, v, mask, rate, self.causal, scale=self.scale, enable_gqa=self.grouped
        )


class Reference(str):
    """The name of a value computed before."""


class Call(NamedTuple):
    """One step: a layer, function or bare tensor, what it is given, whom nobody needs after it."""

    name: str
    kind: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    spent: list[str]


class Program(NamedTuple):
    """What `Network` runs: the values that its inputs become, the calls, and its output."""

    inputs: list[str]
    calls: list[Call]
    output: Any


class Network(nn.Module):
    """Runs the calls of a description, one after the other."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        """Build the layers, without weights; `rebuild` fills them in."""
        super().__init__()
        # One name of our own: all others belong to the layers.
        self._program = _program(description)
        for path, layer in description["layers"].items():
            _place(self, path, _layer(path, layer))

    def forward(self, *tensors: Tensor) -> Any:  # noqa: ANN401  # whatever containers it has
        """Return the outputs for one tensor for each input, in order."""
        values: dict[str, Any] = dict(zip(self._program.inputs, tensors, strict=True))
        values[DEVICE] = tensors[0].device
        for name, kind, target, args, kwargs, spent in self._program.calls:
            if kind == "tensor":
                values[name] = _find(self, target)
            else:
                function = self.get_submodule(target) if kind == "layer" else target
                values[name] = function(*_fill(args, values), **_fill(kwargs, values))
            for done in spent:
                del values[done]
        return _fill(self._program.output, values)


def rebuild(path: str | Path = "architecture.json", weights: str | Path | None = None) -> Network:
    """Return the network that a description and a file of weights make, in eval mode.

    Args:
        path: of the description.
        weights: the safetensors file; None for the one that the description names, beside it.

    Raises:
        DescriptionError: damaged, of another version, or with layers, calls or weights that are not
            in the tables or do not fit.
    """
    from safetensors.torch import load_file

    path = Path(path)
    if path.stat().st_size > MAX_BYTES:
        raise DescriptionError(f"{path.name} is larger than {MAX_BYTES} bytes")
    try:
        description = json.loads(path.read_bytes())
        found = (description["format"], description["version"])
        if found != (FORMAT, VERSION):
            raise DescriptionError(f"{path.name} is {found}; this reads {(FORMAT, VERSION)}")
        network = Network(description)
        file = path.with_name(Path(description["weights"]).name) if weights is None else weights
        _install(network, description, load_file(file))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DescriptionError(f"{path.name} cannot be read: {error}") from error
    return network.eval()


def _layer(path: str, item: Mapping[str, Any]) -> nn.Module:
    kind, options = item["kind"], item["options"]
    if kind not in LAYERS or not set(options) <= set(LAYERS[kind]):
        raise DescriptionError(f"layer {path}: {kind} with {sorted(options)} is not in the table")
    ready: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in options.items()
    }
    if not all(isinstance(v, int | float | str | tuple | None) for v in ready.values()):
        raise DescriptionError(f"layer {path}: options are numbers, texts and lists of numbers")
    with torch.device("meta"):
        build = Attention if kind == "Attention" else getattr(nn, kind)
        layer: nn.Module = build(**ready)
    return layer


def _place(
    network: nn.Module, path: str, item: nn.Module | Tensor, persistent: bool = True
) -> None:
    if not _PATH.fullmatch(path):
        raise DescriptionError(f"{path[:200]!r} is no path of plain names")
    *folders, leaf = path.split(".")
    host = network
    for name in folders:
        if name not in host._modules:
            host.add_module(name, nn.Module())
        host = host._modules[name]  # type: ignore[assignment]
    if isinstance(item, nn.Parameter):
        host.register_parameter(leaf, item)
    elif isinstance(item, Tensor):
        host.register_buffer(leaf, item, persistent)
    else:
        host.add_module(leaf, item)


def _install(network: Network, description: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Put the weights into the layers, and the bare tensors where they belong."""
    shared = {alias: tensors[name] for alias, name in description["shared"].items()}
    learnt: dict[int, nn.Parameter] = {}
    state = {**tensors, **shared}
    for path, item in description["tensors"].items():
        tensor = state.pop(path)
        if item["parameter"]:
            tensor = learnt.setdefault(id(tensor), nn.Parameter(tensor))
        _place(network, path, tensor, bool(item["persistent"]))
    for path, place in [*network.named_parameters(), *network.named_buffers()]:
        if not place.is_meta:
            continue
        tensor = state.pop(path)
        if tensor.shape != place.shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(place.shape)}"
            raise DescriptionError(f"the weight {path} is {shapes}")
        host, _, leaf = path.rpartition(".")
        owner = network.get_submodule(host)
        if isinstance(place, nn.Parameter):
            owner._parameters[leaf] = learnt.setdefault(id(tensor), nn.Parameter(tensor))
        else:
            owner._buffers[leaf] = tensor
    if state:
        raise DescriptionError(f"weights without a place: {', '.join(sorted(state)[:5])}")


def _program(description: Mapping[str, Any]) -> Program:
    calls = [_call(call) for call in description["calls"]]
    output = _value(description["output"])
    needed = _names(output)
    for call in reversed(calls):
        used = {*_names(call.args), *_names(call.kwargs), call.name}
        call.spent.extend(sorted(used - needed))
        needed |= used
    return Program([str(item["value"]) for item in description["inputs"]], calls, output)


def _call(call: Mapping[str, Any]) -> Call:
    kind, target = call["kind"], call["target"]
    if kind == "function":
        target = _function(target)
    elif kind not in ("layer", "tensor"):
        raise DescriptionError(f"a call of kind {kind!r}")
    args = tuple(_value(item) for item in call.get("args", ()))
    kwargs = {str(name): _value(item) for name, item in call.get("kwargs", {}).items()}
    return Call(str(call["name"]), kind, target, args, kwargs, [])


def _function(target: str) -> Callable[..., Any]:
    if target in FUNCTIONS:
        return FUNCTIONS[target]
    space, name, overload = target.split(".")
    if name not in {"aten": OPERATORS, "quantized_decomposed": QUANTIZED}.get(space, ()):
        raise DescriptionError(f"the operator {target[:100]!r} is not in the table")
    if space == "quantized_decomposed":
        from torch.ao.quantization.fx import _decomposed  # noqa: F401  # registers its operators
    function: Callable[..., Any] = getattr(getattr(getattr(torch.ops, space), name), overload)
    return function


def _value(item: Any) -> Any:  # noqa: ANN401  # JSON in, arguments out
    """Return an argument: a number or text, a list of arguments, or an object with one key."""
    if isinstance(item, list):
        return [_value(part) for part in item]
    if not isinstance(item, dict):
        return item
    [(kind, content)] = item.items()
    if kind == "value":
        return Reference(content)
    if kind == "tuple":
        return tuple(_value(part) for part in content)
    if kind == "dict":
        return {str(name): _value(part) for name, part in content.items()}
    if kind == "device":  # that of the inputs, wherever the network was described
        return Reference(DEVICE)
    if kind == "float":
        return _FLOATS[content]
    if content not in _CONSTANTS[kind]:
        raise DescriptionError(f"{kind} {content!r} is not in the table")
    return getattr(torch, content)


def _fill(item: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401  # see `_value`
    if isinstance(item, Reference):
        return values[item]
    if isinstance(item, tuple | list):
        return type(item)(_fill(part, values) for part in item)
    if isinstance(item, dict):
        return {name: _fill(part, values) for name, part in item.items()}
    return item


def _names(item: Any) -> set[str]:  # noqa: ANN401  # see `_value`
    if isinstance(item, Reference):
        return {str(item)}
    parts = item.values() if isinstance(item, dict) else item
    return set().union(*map(_names, parts)) if isinstance(item, dict | list | tuple) else set()


def _find(network: nn.Module, path: str) -> Tensor:
    host, _, leaf = path.rpartition(".")
    owner = network.get_submodule(host)
    tensor: Tensor = getattr(owner, leaf)
    return tensor

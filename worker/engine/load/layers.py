"""Which `torch.nn` layer an ATen call was: one function for each kind of layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn
from torch._ops import OpOverload

from worker.engine.load.attention import Attention
from worker.engine.load.graph import RANK
from worker.engine.load.inplace import name_of

Build = Callable[..., nn.Module]


@dataclass(frozen=True)
class Layer:
    """A layer to be: a module on the meta device, what it is called with, and its weights."""

    module: nn.Module
    inputs: tuple[object, ...]
    weights: dict[str, fx.Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One ATen call with its arguments by name, defaults filled in.

    `tensors` holds the weights of the graph by their `get_attr` node.
    """

    node: fx.Node
    arguments: dict[str, Any]
    tensors: dict[fx.Node, Tensor]

    def weight(self, name: str) -> Tensor | None:
        """Return the stored tensor of an argument; None where it is absent or computed."""
        return self.tensors.get(self.arguments.get(name))  # type: ignore[arg-type]

    def weights(self, *names: str) -> dict[str, fx.Node]:
        """Return the weights among some arguments."""
        return {name: self.arguments[name] for name in names if self.arguments[name] is not None}

    def is_stored(self, *names: str) -> bool:
        """Tell whether each of these arguments is absent or a stored tensor."""
        return all(
            self.arguments.get(name) is None or self.weight(name) is not None for name in names
        )

    def sizes(self, name: str, count: int) -> tuple[int, ...]:
        """Return an argument of `count` sizes, of which one may stand for all."""
        values = tuple(self.arguments[name])
        return values if len(values) == count else values * count


def layer_of(node: fx.Node, tensors: dict[fx.Node, Tensor]) -> Layer | None:
    """Return the layer that a call was; None where it is arithmetic or of another form."""
    build = _BUILDERS.get(name_of(node))
    if build is None or not isinstance(node.target, OpOverload):
        return None
    return build(Call(node, _bound(node, node.target), tensors))


def _bound(node: fx.Node, target: OpOverload) -> dict[str, Any]:
    schema = target._schema.arguments
    values = {item.name: item.default_value for item in schema}
    values.update(zip((item.name for item in schema), node.args, strict=False))
    return {**values, **node.kwargs}


def _convolution(call: Call) -> Layer | None:
    weight, given = call.weight("weight"), call.arguments
    if weight is None or not call.is_stored("bias") or given.get("transposed"):
        return None
    count = weight.dim() - 2
    kinds: dict[int, Build] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    padding = (
        given["padding"] if isinstance(given["padding"], str) else call.sizes("padding", count)
    )
    module = kinds[count](
        weight.shape[1] * given["groups"],
        weight.shape[0],
        tuple(weight.shape[2:]),
        call.sizes("stride", count),
        padding,
        call.sizes("dilation", count),
        given["groups"],
        given["bias"] is not None,
        device="meta",
    )
    return Layer(module, (given["input"],), call.weights("weight", "bias"))


def _transposed_convolution(call: Call) -> Layer | None:
    weight, given = call.weight("weight"), call.arguments
    if weight is None or not call.is_stored("bias"):
        return None
    count = weight.dim() - 2
    kinds: dict[int, Build] = {
        1: nn.ConvTranspose1d,
        2: nn.ConvTranspose2d,
        3: nn.ConvTranspose3d,
    }
    module = kinds[count](
        weight.shape[0],
        weight.shape[1] * given["groups"],
        tuple(weight.shape[2:]),
        call.sizes("stride", count),
        call.sizes("padding", count),
        call.sizes("output_padding", count),
        given["groups"],
        given["bias"] is not None,
        call.sizes("dilation", count),
        device="meta",
    )
    return Layer(module, (given["input"],), call.weights("weight", "bias"))


def _linear(call: Call) -> Layer | None:
    weight = call.weight("weight")
    if weight is None or weight.dim() != 2 or not call.is_stored("bias"):
        return None
    return _linear_layer(call, weight, "input")


def _linear_layer(call: Call, weight: Tensor, source: str) -> Layer:
    has_bias = call.arguments.get("bias") is not None
    module = nn.Linear(weight.shape[1], weight.shape[0], has_bias, device="meta")
    names = ("weight", "bias") if has_bias else ("weight",)
    return Layer(module, (call.arguments[source],), call.weights(*names))


def _matrix_product(call: Call) -> Layer | None:
    """``x @ w.t() (+ b)``: what a linear layer becomes in a decomposed graph."""
    turned, given = call.arguments["mat2"], call.arguments
    if not isinstance(turned, fx.Node) or not _is_transpose(turned):
        return None
    weight, bias = turned.args[0], given["self"] if "mat1" in given else None
    if not isinstance(weight, fx.Node) or weight not in call.tensors:
        return None
    if bias is not None and (bias not in call.tensors or given["beta"] != 1 or given["alpha"] != 1):
        return None
    source = "mat1" if "mat1" in given else "self"
    plain = Call(call.node, {**given, "weight": weight, "bias": bias}, call.tensors)
    return _linear_layer(plain, call.tensors[weight], source)


def _is_transpose(node: fx.Node) -> bool:
    name = name_of(node)
    if name == "t":
        return True
    if name == "permute":
        return list(node.args[1:2]) == [[1, 0]]
    return name == "transpose" and set(node.args[1:3]) == {0, 1}


def _batch_norm(call: Call) -> Layer | None:
    names = ("weight", "bias", "running_mean", "running_var")
    first = next((t for name in names if (t := call.weight(name)) is not None), None)
    rank = call.arguments["input"].meta.get(RANK)
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    if first is None or rank not in kinds or not call.is_stored(*names):
        return None
    affine, tracks = call.weight("weight") is not None, call.weight("running_mean") is not None
    if affine != (call.weight("bias") is not None):
        return None
    given = call.arguments
    module = kinds[rank](
        first.shape[0], given["eps"], given["momentum"], affine, tracks, device="meta"
    )
    return Layer(module, (given["input"],), call.weights(*names))


def _layer_norm(call: Call) -> Layer | None:
    given = call.arguments
    if not call.is_stored("weight", "bias") or not _are_integers(given["normalized_shape"]):
        return None
    if given["weight"] is None and given["bias"] is not None:
        return None
    module = nn.LayerNorm(
        list(given["normalized_shape"]),
        given["eps"],
        given["weight"] is not None,
        bias=given["bias"] is not None,
        device="meta",
    )
    return Layer(module, (given["input"],), call.weights("weight", "bias"))


def _group_norm(call: Call) -> Layer | None:
    weight, bias, given = call.weight("weight"), call.weight("bias"), call.arguments
    if weight is None or bias is None:
        return None
    module = nn.GroupNorm(given["num_groups"], weight.shape[0], given["eps"], device="meta")
    return Layer(module, (given["input"],), call.weights("weight", "bias"))


def _embedding(call: Call) -> Layer | None:
    weight, given = call.weight("weight"), call.arguments
    if weight is None or weight.dim() != 2:
        return None
    padding = given["padding_idx"] if given["padding_idx"] >= 0 else None
    module = nn.Embedding(weight.shape[0], weight.shape[1], padding, device="meta")
    return Layer(module, (given["indices"],), call.weights("weight"))


def _prelu(call: Call) -> Layer | None:
    weight = call.weight("weight")
    if weight is None:
        return None
    module = nn.PReLU(weight.numel(), device="meta")
    return Layer(module, (call.arguments["self"],), call.weights("weight"))


def _attention(call: Call) -> Layer:
    given = call.arguments
    module = Attention(given["dropout_p"], given["is_causal"], given["scale"], given["enable_gqa"])
    mask = () if given["attn_mask"] is None else (given["attn_mask"],)
    return Layer(module, (given["query"], given["key"], given["value"], *mask))


def _max_pool2d(call: Call) -> Layer:
    given = call.arguments
    module = nn.MaxPool2d(
        call.sizes("kernel_size", 2),
        call.sizes("stride", 2) if given["stride"] else None,
        call.sizes("padding", 2),
        call.sizes("dilation", 2),
        ceil_mode=given["ceil_mode"],
    )
    return Layer(module, (given["self"],))


def _avg_pool2d(call: Call) -> Layer:
    given = call.arguments
    kind: Build = nn.AvgPool2d
    module = kind(
        call.sizes("kernel_size", 2),
        call.sizes("stride", 2) if given["stride"] else None,
        call.sizes("padding", 2),
        given["ceil_mode"],
        given["count_include_pad"],
        given["divisor_override"],
    )
    return Layer(module, (given["self"],))


def _adaptive_avg_pool2d(call: Call) -> Layer | None:
    sizes = call.arguments["output_size"]
    if not _are_integers(sizes):
        return None
    return Layer(nn.AdaptiveAvgPool2d(tuple(sizes)), (call.arguments["self"],))


def _hardtanh(call: Call) -> Layer:
    low, high = call.arguments["min_val"], call.arguments["max_val"]
    module = nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)
    return Layer(module, (call.arguments["self"],))


def _elu(call: Call) -> Layer | None:
    given = call.arguments
    if given["scale"] != 1 or given["input_scale"] != 1:
        return None
    return Layer(nn.ELU(given["alpha"]), (given["self"],))


def _plain(kind: Callable[[], nn.Module]) -> Callable[[Call], Layer]:
    return lambda call: Layer(kind(), (call.arguments["self"],))


def _are_integers(values: Iterable[object]) -> bool:
    return all(type(value) is int for value in values)


_ACTIVATIONS: dict[str, Callable[[Call], Layer | None]] = {
    "relu": _plain(nn.ReLU),
    "relu6": _plain(nn.ReLU6),
    "hardtanh": _hardtanh,
    "hardswish": _plain(nn.Hardswish),
    "hardsigmoid": _plain(nn.Hardsigmoid),
    "silu": _plain(nn.SiLU),
    "sigmoid": _plain(nn.Sigmoid),
    "tanh": _plain(nn.Tanh),
    "mish": _plain(nn.Mish),
    "gelu": lambda call: Layer(nn.GELU(call.arguments["approximate"]), (call.arguments["self"],)),
    "leaky_relu": lambda call: Layer(
        nn.LeakyReLU(call.arguments["negative_slope"]), (call.arguments["self"],)
    ),
    "elu": _elu,
    # The mode of the export is dropped: `train` and `eval` of the module decide.
    "dropout": lambda call: Layer(nn.Dropout(call.arguments["p"]), (call.arguments["input"],)),
}
_BUILDERS: dict[str, Callable[[Call], Layer | None]] = {
    **_ACTIVATIONS,
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "convolution": _convolution,
    "conv_transpose1d": _transposed_convolution,
    "conv_transpose2d": _transposed_convolution,
    "conv_transpose3d": _transposed_convolution,
    "linear": _linear,
    "addmm": _matrix_product,
    "mm": _matrix_product,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "layer_norm": _layer_norm,
    "native_layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "embedding": _embedding,
    "prelu": _prelu,
    "scaled_dot_product_attention": _attention,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
}

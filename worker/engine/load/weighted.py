"""Layers that hold weights: convolutions, products, norms, embeddings."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, fx, nn

from worker.engine.load.call import Build, Call, Layer, are_integers
from worker.engine.load.graph import RANK
from worker.engine.load.inplace import name_of


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
    if not call.is_stored("weight", "bias") or not are_integers(given["normalized_shape"]):
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


def _rms_norm(call: Call) -> Layer | None:
    given = call.arguments
    if not call.is_stored("weight") or not are_integers(given["normalized_shape"]):
        return None
    module = nn.RMSNorm(
        list(given["normalized_shape"]), given["eps"], given["weight"] is not None, device="meta"
    )
    return Layer(module, (given["input"],), call.weights("weight"))


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


WEIGHTED: dict[str, Callable[[Call], Layer | None]] = {
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
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "embedding": _embedding,
    "prelu": _prelu,
}

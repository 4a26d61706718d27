"""Layers without weights: activations, dropout, pooling, attention."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from worker.engine.load.attention import Attention
from worker.engine.load.call import Build, Call, Layer, are_integers
from worker.engine.load.graph import RANK


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
    if not are_integers(sizes):
        return None
    return Layer(nn.AdaptiveAvgPool2d(tuple(sizes)), (call.arguments["self"],))


def _hardtanh(call: Call) -> Layer:
    low, high = call.arguments["min_val"], call.arguments["max_val"]
    module = nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)
    return Layer(module, (call.arguments["self"],))


def _channel_dropout(call: Call) -> Layer | None:
    kinds: dict[int, Build] = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}
    kind = kinds.get(call.arguments["input"].meta.get(RANK))
    return None if kind is None else Layer(kind(call.arguments["p"]), (call.arguments["input"],))


def _elu(call: Call) -> Layer | None:
    given = call.arguments
    if given["scale"] != 1 or given["input_scale"] != 1:
        return None
    return Layer(nn.ELU(given["alpha"]), (given["self"],))


def _plain(kind: Callable[[], nn.Module]) -> Callable[[Call], Layer]:
    return lambda call: Layer(kind(), (call.arguments["self"],))


PLAIN: dict[str, Callable[[Call], Layer | None]] = {
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
    "feature_dropout": _channel_dropout,
    "alpha_dropout": lambda call: Layer(
        nn.AlphaDropout(call.arguments["p"]), (call.arguments["input"],)
    ),
    "scaled_dot_product_attention": _attention,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
}

"""Dynamic int8: the weights' integers are fixed, the activations' are found anew in each call."""

from __future__ import annotations

from torch import Tensor

from planish.contract.recipe import Quantize
from worker.engine.model import Model, QuantizedLayer

_LARGEST = 127


def dynamic_layers(
    model: Model, params: Quantize, layers: tuple[str, ...]
) -> tuple[QuantizedLayer, ...]:
    """Return the scales that the ONNX writer will store for the linear layers in `layers`.

    Symmetric, so every zero point is 0: ``scale = max |w| / 127`` over a channel or the tensor.
    """
    return tuple(_layer(model, name, params) for name in layers)


def _layer(model: Model, name: str, params: Quantize) -> QuantizedLayer:
    weight = model.module.get_submodule(name).weight
    if not isinstance(weight, Tensor):
        raise TypeError(f"{name} has no weight tensor")
    sizes = weight.detach().abs()
    largest = sizes.amax(dim=1) if params.granularity == "channel" else sizes.max().reshape(1)
    scale = (largest / _LARGEST).tolist()
    return QuantizedLayer(name=name, dtype="int8", scale=tuple(scale), zero_point=(0,) * len(scale))

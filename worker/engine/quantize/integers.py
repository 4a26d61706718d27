"""The check that a layer's integers are what the formula makes of its float weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import JsonValue
from torch import Tensor

from worker.engine.model import Model, QuantizedLayer

RANGES = {"int8": (-127, 127), "uint8": (0, 255)}


@dataclass(frozen=True)
class Check:
    """Integers of all layers, recomputed.

    Attributes:
        weights: how many were compared.
        different: how many are not ``clamp(round(w / scale) + zero_point)``.
        largest: the largest difference, in steps.
    """

    weights: int
    different: int
    largest: int

    def facts(self) -> dict[str, JsonValue]:
        """Return the check as the report shows it."""
        return {
            "formula": "clamp(round(w / scale) + zero_point)",
            "weights_checked": self.weights,
            "different": self.different,
            "largest_difference": self.largest,
        }


def expected_integers(weight: Tensor, layer: QuantizedLayer) -> Tensor:
    """Return ``clamp(round(w / scale) + zero_point)`` as int32.

    Args:
        weight: float, output channels first.
        layer: scale and zero point of the tensor, or of each output channel.
    """
    sizes = [-1] + [1] * (weight.dim() - 1)
    scale = torch.tensor(layer.scale, dtype=torch.float32).reshape(sizes)
    zero_point = torch.tensor(layer.zero_point, dtype=torch.float32).reshape(sizes)
    low, high = RANGES[layer.dtype]
    # torch rounds w * (1 / scale); dividing differs by a step where a value lies between two.
    return ((weight.detach() * (1 / scale)).round() + zero_point).clamp(low, high).to(torch.int32)


def check_integers(weights: Mapping[str, Tensor], after: Model) -> Check:
    """Compare the integers of a static model with what the formula makes of its float weights.

    Args:
        weights: what was rounded, by layer.
        after: the model in integers.
    """
    state = after.module.state_dict()
    count = different = largest = 0
    for layer in after.quantization.layers if after.quantization else ():
        stored = state[f"{layer.name}.weight"].to(torch.int32)
        gap = (stored - expected_integers(weights[layer.name], layer)).abs()
        count += gap.numel()
        different += int((gap > 0).sum())
        largest = max(largest, int(gap.max()))
    return Check(count, different, largest)

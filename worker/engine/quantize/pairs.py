"""One q/dq pair while a model is being quantized: it observes, then simulates, then is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torchao.quantization.pt2e.fake_quantize import FakeQuantize


class Pair(FakeQuantize):  # type: ignore[misc]  # torchao has no types
    """A place where a value is rounded to integers and back.

    In order: it observes what passes through (calibration), its scale and zero point are settled,
    it simulates the rounding (``fake_quant_enabled``), and the converter writes its numbers into
    the graph. With both switches off the graph computes in float. A settled pair whose observer is
    on again follows what it sees, in training mode only.
    """

    def __init__(self, *args: object, **options: object) -> None:
        """Begin observing, without any rounding."""
        super().__init__(*args, **options)
        self.disable_fake_quant()
        self.settled = False

    def forward(self, x: Tensor) -> Tensor:
        """Observe `x`, round it, or hand it on."""
        if self.observer_enabled[0] == 1 and (self.training or not self.settled):
            self.activation_post_process(x.detach())
            if self.settled:
                self._measure()
        if self.fake_quant_enabled[0] == 0:
            return x
        low, high = self.activation_post_process.quant_min, self.activation_post_process.quant_max
        scale, zero_point = self.scale, self.zero_point.to(torch.int32)
        if self.is_per_channel:
            return torch.fake_quantize_per_channel_affine(
                x, scale, zero_point, self.ch_axis, low, high
            )
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)

    def settle(self) -> None:
        """Fix scale and zero point from what was seen, and stop observing."""
        self._measure()
        self.settled = True
        self.disable_observer()

    def widen(self, least: Tensor) -> None:
        """Raise the scale to at least `least`: one value, or one for each channel."""
        self.scale.copy_(torch.maximum(self.scale, least.to(self.scale)))

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point as settled."""
        if self.settled:
            return self.scale, self.zero_point
        scale, zero_point = self.activation_post_process.calculate_qparams()
        return scale, zero_point

    def _measure(self) -> None:
        scale, zero_point = self.activation_post_process.calculate_qparams()
        if self.scale.shape != scale.shape:
            self.scale.resize_(scale.shape)
            self.zero_point.resize_(zero_point.shape)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)


def pairs_of(graph: nn.Module) -> dict[str, Pair]:
    """Return all pairs of a prepared graph by the name of their module; shared ones once."""
    return {name: layer for name, layer in graph.named_modules() if isinstance(layer, Pair)}


def settle(graph: nn.Module) -> None:
    """End calibration."""
    for pair in pairs_of(graph).values():
        pair.settle()


@contextmanager
def rounding(pairs: Iterable[Pair]) -> Iterator[None]:
    """Let these pairs round, and give back what they did before."""
    chosen = list(pairs)
    before = [int(pair.fake_quant_enabled[0]) for pair in chosen]
    try:
        for pair in chosen:
            pair.enable_fake_quant()
        yield
    finally:
        for pair, enabled in zip(chosen, before, strict=True):
            pair.enable_fake_quant(bool(enabled))

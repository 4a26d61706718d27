"""How large the values of a network get."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, fx

HEADROOM = 2.0
"""Samples must stay this factor below the type's largest value: other inputs may go higher."""


def too_large(
    module: fx.GraphModule, batches: Iterable[tuple[Tensor, ...]], dtype: torch.dtype
) -> dict[str, float]:
    """Return the nodes whose values leave the range of a type, with the largest one seen.

    Args:
        module: the float32 graph.
        batches: inputs to look at.
        dtype: ``torch.float16`` (±65504) or ``torch.bfloat16`` (as wide as float32).
    """
    peaks = _Peaks(module)
    with torch.no_grad():
        for batch in batches:
            peaks.run(*batch)
    limit = torch.finfo(dtype).max / HEADROOM
    return {name: peak for name, peak in peaks.largest.items() if peak > limit}


class _Peaks(fx.Interpreter):
    """Runs a graph and notes the largest finite magnitude of each node's value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.largest: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if n.op != "placeholder" and isinstance(result, Tensor) and result.is_floating_point():
            finite = result[result.isfinite()]
            peak = float(finite.abs().max()) if finite.numel() else 0.0
            self.largest[n.name] = max(peak, self.largest.get(n.name, 0.0))
        return result

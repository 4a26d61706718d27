"""Looking into a network while it computes: what layers take and give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn


class Taps:
    """Keeps what named layers took and gave in the last call of a network.

    Attributes:
        taken: the tensors that a layer was called with, by name.
        given: the tensor that it returned, by name.
    """

    def __init__(self, module: nn.Module, layers: Iterable[str]) -> None:
        self.taken: dict[str, tuple[Tensor, ...]] = {}
        self.given: dict[str, Tensor] = {}
        self._handles = [
            module.get_submodule(name).register_forward_hook(partial(self._keep, name))
            for name in dict.fromkeys(layers)
        ]

    def close(self) -> None:
        """Let go of the network and of everything kept."""
        for handle in self._handles:
            handle.remove()
        self.taken.clear()
        self.given.clear()

    def _keep(self, name: str, _layer: nn.Module, taken: tuple[object, ...], given: object) -> None:
        self.taken[name] = tuple(value for value in taken if isinstance(value, Tensor))
        if isinstance(given, Tensor):
            self.given[name] = given


@contextmanager
def tapped(module: nn.Module, layers: Iterable[str]) -> Iterator[Taps]:
    """Yield taps that are closed at the end of the block."""
    taps = Taps(module, layers)
    try:
        yield taps
    finally:
        taps.close()

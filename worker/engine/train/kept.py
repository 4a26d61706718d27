"""Weights beside the ones that train: the best so far, and their moving average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from worker.engine.sparsity import Held
from worker.engine.train.shards import Tensors, local, tensors_of


class Snapshot:
    """A copy of a module's state that can be put back.

    Attributes:
        values: this process's part of each tensor.
    """

    def __init__(self, module: nn.Module) -> None:
        self._live = tensors_of(module)
        self.values: Tensors = {name: local(value).clone() for name, value in self._live.items()}

    def take(self) -> None:
        """Copy the module's present state."""
        for name, value in self._live.items():
            self.values[name].copy_(local(value))

    def put_back(self) -> None:
        """Give the module the state that was copied."""
        for name, value in self._live.items():
            local(value).copy_(self.values[name])


class Average:
    """Exponential moving average of all float tensors, BatchNorm's statistics too.

    ``average += (1 - d) * (value - average)`` after each step, with ``d = min(decay, (1 + step) /
    (10 + step))``, so that the weights of the start are soon forgotten (Polyak and Juditsky 1992;
    the warm-up is that of TensorFlow's ExponentialMovingAverage).

    Attributes:
        values: this process's part of each average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live: Tensors = {
            name: local(value)
            for name, value in tensors_of(module).items()
            if value.is_floating_point()
        }
        self.values: Tensors = {name: value.clone() for name, value in self._live.items()}
        self._pairs = list(self.values.values()), list(self._live.values())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take a step's weights in; `step` counts from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self._pairs, 1 - decay)

    @contextmanager
    def in_place(self, held: Held) -> Iterator[None]:
        """Have the module hold the averages for a while, zeros of sparsity in place."""
        held.clean(self.values)
        training = {name: value.clone() for name, value in self._live.items()}
        _copy(self.values, self._live)
        try:
            yield
        finally:
            _copy(training, self._live)


def finite(module: nn.Module) -> Tensor:
    """Return whether every parameter is finite, a boolean scalar; of sharded ones, the own part."""
    norms = torch._foreach_norm([local(p.detach()) for p in module.parameters()])
    return torch.stack([norm.float() for norm in norms]).isfinite().all()


def _copy(source: Tensors, target: dict[str, Tensor]) -> None:
    for name, value in source.items():
        target[name].copy_(value)

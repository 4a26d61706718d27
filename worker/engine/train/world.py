"""Who trains: one process on its own, or many that share each batch."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn


class World:
    """One process on its own. What many processes do differently, they override.

    All processes read the same data in the same order; each works on its part of every batch, and
    the gradient is the whole batch's. Rank 0 reports and writes checkpoints.

    Attributes:
        rank: of this process, from 0.
        size: how many processes there are.
    """

    rank = 0
    size = 1

    @property
    def leads(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return what is called in training in place of the module; may change it in place."""
        return module

    def syncing(self, _last: bool) -> AbstractContextManager[None]:
        """Return the context of one piece's forward and backward; gradients meet in the last."""
        return nullcontext()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of parameters that are not part of the wrapped module."""

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace float tensors (BatchNorm statistics) by their mean over the processes."""

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        return values

    def any(self, wish: bool) -> bool:
        """Return whether any process wishes it."""
        return wish

    def stack(self, values: Tensor) -> Tensor:
        """Return each process's tensor, in the order of ranks, in a new first dimension."""
        return values[None]

    def from_leader(self, state: State | None) -> State | None:
        """Return what rank 0 gives, on every process."""
        return state


State = tuple[dict[str, Tensor], str]
"""Tensors by name, and JSON."""

ALONE = World()


def part_of(count: int, rank: int, size: int) -> slice:
    """Return which of `count` samples belong to a process: parts of nearly equal size, in order."""
    base, extra = divmod(count, size)
    begin = rank * base + min(rank, extra)
    return slice(begin, begin + base + (rank < extra))

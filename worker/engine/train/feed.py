"""The batches of a run, in an order that only seed and epoch decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from worker.engine.load.data import Dataset
from worker.engine.train.augment import Draw, changed, draw
from worker.engine.train.blend import Blend, Blended, Targets, draw_blend
from worker.engine.train.losses import CountsTerms, Inputs, Loss
from worker.engine.train.run import Run
from worker.engine.train.samples import (
    Reader,
    arranged,
    batches_per_epoch,
    place,
    reader,
    shuffled_batches,
)
from worker.engine.train.world import World, part_of

Fed = tuple[tuple[Tensor, ...], Targets]
"""Inputs of a batch as the model takes them, and its targets."""


@dataclass(frozen=True)
class Piece:
    """What one forward pass takes.

    Attributes:
        inputs: of the model, on its device.
        targets: of the same samples; None without targets.
        weight: factor of the piece's mean loss, so that the gradients' mean over the processes is
            the gradient of the whole batch's mean loss.
    """

    inputs: Inputs
    targets: Targets
    weight: float


@dataclass(frozen=True)
class _Order:
    """One batch before anything is read: this process's samples, and what happens to them."""

    indices: Tensor
    drawn: Draw | None
    blend: Blend | None
    weights: tuple[float, ...]


class Feed:
    """Batches of a run for one process.

    An epoch's order and augmentation come from the seed and the epoch's number alone, and are drawn
    for whole batches: neither the number of processes nor an interruption changes them.
    """

    def __init__(self, run: Run, loss: Loss, world: World) -> None:
        self._run, self._loss, self._world = run, loss, world
        self._train = run.train
        self.per_epoch = batches_per_epoch(len(run.data), run.train.batch_size)
        self._form = memory_format(run)
        self._source: Iterator[Fed] | None = None
        (first, *_), _ = run.data.prepare(np.arange(1))
        self._sides = first.shape[2:]
        if not self._train.workers:
            self._read = reader(run.data, run.device, self._form)

    def epoch(self, number: int, skip: int = 0) -> Iterator[list[Piece]]:
        """Yield the pieces of each batch of an epoch.

        Args:
            number: of the epoch, from 1.
            skip: batches at its beginning that are done already.
        """
        orders = self._orders(number)[skip:]
        for order, batch in zip(orders, self._batches(number, orders), strict=False):
            yield self._pieces(batch, order.weights)

    def close(self) -> None:
        """End the processes that prepare batches."""
        self._source = None

    def _batches(self, number: int, orders: list[_Order]) -> Iterator[Fed]:
        device = self._run.device
        if not self._train.workers:
            for order in orders:
                inputs, targets = _made(order, self._read)
                yield tuple(arranged(t, self._form) for t in inputs), targets
            return
        if self._source is None:
            self._source = iter(self._loader(number, orders))
        for _ in orders:
            inputs, targets = next(self._source)
            inputs, _ = place((inputs, None), device, self._form)
            yield inputs, None if targets is None else targets.to(device, non_blocking=True)

    def _loader(self, number: int, orders: list[_Order]) -> DataLoader[Fed]:
        """Return a loader of everything from here to the last epoch, so it starts but once."""
        rest = range(number + 1, self._train.epochs + 1)
        todo = _Chain(orders, (self._orders(later) for later in rest))
        return DataLoader(
            _Prepared(self._run.data),
            batch_size=None,
            sampler=todo,
            num_workers=self._train.workers,
            collate_fn=_as_it_is,
            pin_memory=self._run.device.type == "cuda",
            multiprocessing_context="fork",
            generator=Generator(),  # or it would draw from the stream that dropout uses
        )

    def _orders(self, number: int) -> list[_Order]:
        generator = Generator().manual_seed(self._run.seed * 1_000_003 + number)
        batches = shuffled_batches(len(self._run.data), self._train.batch_size, generator)
        return [self._order(indices, generator) for indices in batches]

    def _order(self, indices: Tensor, generator: Generator) -> _Order:
        drawn = None
        if self._train.augment != "none":
            drawn = draw(len(indices), self._sides, self._train.augment, generator)
        own = part_of(len(indices), self._world.rank, self._world.size)
        weights = self._weights(indices, indices[own])
        own_drawn = None if drawn is None else drawn.part(own)
        blend = None
        if self._train.mixup:
            blend = draw_blend(indices, drawn, own, self._train.mixup, generator)
        return _Order(indices[own], own_drawn, blend, weights)

    def _weights(self, everyones: Tensor, own: Tensor) -> tuple[float, ...]:
        if self._train.accumulate == 1 and self._world.size == 1:
            return (1.0,)
        total = self._terms(everyones)
        size = self._world.size
        return tuple(
            size * self._terms(own[part_of(len(own), i, self._train.accumulate)]) / max(total, 1)
            for i in range(self._train.accumulate)
        )

    def _terms(self, indices: Tensor) -> int:
        targets = self._run.data.targets
        if targets is not None and isinstance(self._loss, CountsTerms):
            terms = self._loss.terms(torch.as_tensor(targets[indices.numpy()]))
            return len(indices) if terms is None else terms
        return len(indices)

    def _pieces(self, batch: Fed, weights: tuple[float, ...]) -> list[Piece]:
        inputs, targets = batch
        if len(weights) == 1:
            return [Piece(inputs, targets, weights[0])]
        parts = [part_of(len(inputs[0]), i, len(weights)) for i in range(len(weights))]
        return [
            Piece(
                tuple(t[part] for t in inputs), None if targets is None else targets[part], weight
            )
            for part, weight in zip(parts, weights, strict=True)
        ]


class _Prepared(TorchDataset[Fed]):
    """Reads and augments in a loader's process; the order says what."""

    def __init__(self, data: Dataset) -> None:
        self._data = data

    def __getitem__(self, order: _Order) -> Fed:
        return _made(order, lambda indices: self._data.prepare(indices.numpy()))


class _Chain:
    """The orders of several epochs, made when they are needed."""

    def __init__(self, first: list[_Order], later: Iterator[list[_Order]]) -> None:
        self._first, self._later = first, later

    def __iter__(self) -> Iterator[_Order]:
        yield from self._first
        for orders in self._later:
            yield from orders


def _made(order: _Order, read: Reader) -> Fed:
    """Return the batch of an order: read, shifted and mirrored, and blended."""
    inputs, targets = read(order.indices)
    images = tuple(changed(t, order.drawn) for t in inputs)
    blend = order.blend
    if blend is None:
        return images, targets
    partners, others = read(blend.partners)
    images = tuple(blend.into(t, other) for t, other in zip(images, partners, strict=True))
    if not isinstance(targets, Tensor) or not isinstance(others, Tensor):
        return images, None
    return images, Blended(targets, others, blend.share)


def memory_format(run: Run) -> torch.memory_format:
    """Return how images lie in memory while training."""
    return torch.channels_last if run.train.channels_last else torch.contiguous_format


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 - torch's own type: it takes whatever it gets
    return batch

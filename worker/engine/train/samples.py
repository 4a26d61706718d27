"""Batches of a dataset: prepared once when they fit in memory, else as they are needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor

from worker.engine.load.data import Dataset

MAX_CACHED_BYTES = 2 << 30
Batch = tuple[tuple[Tensor, ...], Tensor | None]


def reader(dataset: Dataset) -> Callable[[Tensor], Batch]:
    """Return a function from sample indices to model inputs and labels.

    Up to 2 GiB, the preprocessing is paid once, and a batch costs one gather per tensor.
    """
    (first, _) = dataset.prepare(np.arange(min(1, len(dataset))))
    if sum(t.nbytes for t in first) * len(dataset) > MAX_CACHED_BYTES:
        return lambda indices: dataset.prepare(indices.numpy())
    inputs, targets = dataset.prepare(np.arange(len(dataset)))
    return lambda indices: (
        tuple(t[indices] for t in inputs),
        None if targets is None else targets[indices],
    )


def shuffled_batches(samples: int, batch_size: int, generator: Generator) -> list[Tensor]:
    """Return index batches of nearly equal sizes that cover every sample once.

    Equal sizes, because a last batch of one sample would stop BatchNorm from training.
    """
    order = torch.randperm(samples, generator=generator)
    return list(torch.tensor_split(order, batches_per_epoch(samples, batch_size)))


def batches_per_epoch(samples: int, batch_size: int) -> int:
    """Return how many batches of at most `batch_size` samples there are."""
    return -(-samples // batch_size)

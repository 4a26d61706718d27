"""Batches of a dataset: prepared once when they fit in memory, else as they are needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor

from worker.engine.load.data import Dataset
from worker.engine.train.room import free_memory

MAX_CACHED_BYTES = 2 << 30
_PIECE = 16 << 20
CPU = torch.device("cpu")
Batch = tuple[tuple[Tensor, ...], Tensor | None]
Reader = Callable[[Tensor], Batch]


def reader(
    dataset: Dataset, device: torch.device = CPU, form: torch.memory_format = torch.preserve_format
) -> Reader:
    """Return a function from sample indices (on the CPU) to model inputs and targets.

    Up to 2 GiB, but no more than a quarter of what is free, the preprocessing is paid once, and a
    batch costs one gather per tensor; on a GPU the samples then stay there. Else every batch is
    read and prepared when it is needed.

    Args:
        dataset: the samples.
        device: where the batches shall be.
        form: how images lie in memory.
    """
    inputs, targets = dataset.prepare(np.arange(min(1, len(dataset))))
    sample = sum(t.nbytes for t in inputs) + (0 if targets is None else targets.nbytes)
    if sample * len(dataset) > _room(device):
        return lambda indices: place(dataset.prepare(indices.numpy()), device, form)
    inputs, targets = _prepared(dataset, max(1, _PIECE // max(1, sample)), device, form)

    def gather(indices: Tensor) -> Batch:
        rows = indices.to(device, non_blocking=True)
        picked = None if targets is None else targets.index_select(0, rows)
        return tuple(_rows(t, rows, form) for t in inputs), picked

    return gather


def _prepared(
    dataset: Dataset, piece: int, device: torch.device, form: torch.memory_format
) -> Batch:
    """Return all samples, prepared piece by piece: no second copy of them ever lies in memory."""
    whole: tuple[Tensor, ...] = ()
    for start in range(0, len(dataset), piece):
        rows = np.arange(start, min(start + piece, len(dataset)))
        parts, _ = place(dataset.prepare(rows), device, form)
        whole = whole or tuple(_like(part, len(dataset), form) for part in parts)
        for values, part in zip(whole, parts, strict=True):
            values[start : start + len(part)] = part
    targets = None if dataset.targets is None else torch.from_numpy(np.array(dataset.targets[:]))
    return whole, None if targets is None else targets.to(device)


def _like(part: Tensor, count: int, form: torch.memory_format) -> Tensor:
    images = part.dim() == 4 and form is not torch.preserve_format
    kind = form if images else torch.contiguous_format
    return torch.empty(
        (count, *part.shape[1:]), dtype=part.dtype, device=part.device, memory_format=kind
    )


def place(batch: Batch, device: torch.device, form: torch.memory_format) -> Batch:
    """Return a batch on a device, images in a memory format."""
    inputs, targets = batch
    placed = tuple(arranged(t.to(device, non_blocking=True), form) for t in inputs)
    return placed, None if targets is None else targets.to(device, non_blocking=True)


def arranged(values: Tensor, form: torch.memory_format) -> Tensor:
    """Return images (N, C, H, W) laid out in memory as wanted; all else as it is.

    One channel fits two layouts, and the kernels after it choose theirs by the strides, dropout its
    mask by those: equal strides are what makes runs equal.
    """
    if values.dim() != 4 or form is torch.preserve_format:
        return values
    wanted = torch.empty(values.shape, device="meta", memory_format=form).stride()
    if values.stride() == wanted:
        return values
    return torch.empty_like(values, memory_format=form).copy_(values)


def shuffled_batches(samples: int, batch_size: int, generator: Generator) -> list[Tensor]:
    """Return index batches of nearly equal sizes that cover every sample once.

    Equal sizes, because a last batch of one sample would stop BatchNorm from training.
    """
    order = torch.randperm(samples, generator=generator)
    return list(torch.tensor_split(order, batches_per_epoch(samples, batch_size)))


def batches_per_epoch(samples: int, batch_size: int) -> int:
    """Return how many batches of at most `batch_size` samples there are."""
    return -(-samples // batch_size)


def _room(device: torch.device) -> int:
    """Return how many bytes prepared samples may take."""
    if device.type != "cuda":
        return min(MAX_CACHED_BYTES, free_memory() // 4)
    free, _ = torch.cuda.mem_get_info(device)
    return min(MAX_CACHED_BYTES, free // 4)


def _rows(values: Tensor, rows: Tensor, form: torch.memory_format) -> Tensor:
    """Return some samples, laid out in memory as all of them are."""
    if values.dim() == 4 and form is torch.channels_last:
        return values.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return values.index_select(0, rows)

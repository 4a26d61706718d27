"""Samples of a data file as the model takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.load.arrays import Array, let_go
from worker.engine.load.deferred import IGNORED, Deferred, Rows, Targets
from worker.engine.load.scratch import Scratch

__all__ = ["IGNORED", "Dataset", "Rows", "Source", "Targets"]


@dataclass(frozen=True, eq=False)
class Source:
    """One stored array and the way from its values to a model input.

    ``(x * scale - mean) / std`` in float32, per channel (dimension 1 of the model's input), after
    NHWC images were turned to NCHW. Integer inputs are cast only.

    Attributes:
        values: as stored, the samples first; often a read-only memory map.
        shape: of one sample as the model takes it; None for sizes that vary.
        dtype: of the model input.
        channels_last: whether images are stored as NHWC.
        scale: factor of the stored values.
        mean: one value, or one for each channel.
        std: likewise.
    """

    values: Array = field(repr=False)
    shape: tuple[int | None, ...]
    dtype: torch.dtype
    channels_last: bool = False
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def prepare(self, rows: Rows) -> Tensor:
        """Return the samples of some rows, contiguous, in the model's layout and type."""
        raw = self.values[rows]
        let_go(self.values)
        if self.channels_last:
            raw = raw.transpose(0, 3, 1, 2)
        if raw.ndim == len(self.shape):
            raw = raw[:, None]
        if not self.dtype.is_floating_point:
            return torch.from_numpy(np.ascontiguousarray(raw, np.int64)).to(self.dtype)
        tensor = torch.from_numpy(np.ascontiguousarray(raw, np.float32))
        return self._normalize(tensor).to(self.dtype)

    def _normalize(self, tensor: Tensor) -> Tensor:
        if (self.scale, self.mean, self.std) == (1.0, (0.0,), (1.0,)):
            return tensor
        sizes = [1, -1] + [1] * (tensor.ndim - 2)
        mean = torch.tensor(self.mean, dtype=torch.float32).reshape(sizes)
        std = torch.tensor(self.std, dtype=torch.float32).reshape(sizes)
        return tensor.mul_(self.scale).sub_(mean).div_(std)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A choice of rows of shared arrays.

    Attributes:
        inputs: one source for each model input, in the model's order; all rows of the file.
        rows: which rows belong here, in the order that index 0, 1, 2 … means.
        targets: what the model should answer for these rows, in the same order; None without
            labels. Class indices (int64), numbers in the output's shape (float32), token ids
            (N, S) with `IGNORED` where none is wanted (int64), or embeddings (N, D) (float32).
        scores: of pairs: rows 2i and 2i + 1 belong together, and both carry the pair's (float32).
        scratch: holds files that the arrays are mapped from; None where there are none.
    """

    inputs: tuple[Source, ...]
    rows: Rows = field(repr=False)
    targets: Targets | None = field(default=None, repr=False)
    scores: NDArray[np.float32] | None = field(default=None, repr=False)
    scratch: Scratch | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def prepare(self, indices: NDArray[np.integer]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return model inputs and targets of some samples.

        Args:
            indices: positions in this dataset, from 0.
        """
        rows = self.rows[indices]
        targets = None if self.targets is None else torch.from_numpy(self.targets[indices])
        return tuple(source.prepare(rows) for source in self.inputs), targets

    def batches(self, size: int) -> Iterator[tuple[tuple[Tensor, ...], Tensor | None]]:
        """Yield all samples in order, at most `size` at once."""
        for start in range(0, len(self), size):
            yield self.prepare(np.arange(start, min(start + size, len(self))))

    def take(self, indices: NDArray[np.integer]) -> Dataset:
        """Return a dataset of some of these samples; no value is copied."""
        targets = self.targets
        if targets is not None:
            targets = targets.take(indices) if isinstance(targets, Deferred) else targets[indices]
        scores = None if self.scores is None else self.scores[indices]
        return replace(self, rows=self.rows[indices], targets=targets, scores=scores)

    def head(self, count: int) -> Dataset:
        """Return the first samples, all of them when there are fewer."""
        return self.take(np.arange(min(count, len(self))))

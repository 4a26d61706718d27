"""Targets as large as the inputs stay in their file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from worker.engine.load.arrays import SMALL, Array, let_go

Rows = NDArray[np.int64]
Answers = NDArray[np.int64] | NDArray[np.float32]
IGNORED = -100  # a token that no loss and no metric counts


@dataclass(frozen=True, eq=False)
class Deferred:
    """Targets that are read when they are needed; indexed as the array that they stand for.

    Attributes:
        values: of all samples of the file; often a read-only memory map.
        rows: which samples belong here, in the order that index 0, 1, 2 … means.
        shape: of one sample's target.
        dtype: as handed on: int64 or float32.
        mask: of token ids: where it is 0 the target is `IGNORED`; None shows all.
    """

    values: Array = field(repr=False)
    rows: Rows = field(repr=False)
    shape: tuple[int, ...]
    dtype: type[np.int64] | type[np.float32]
    mask: Array | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: NDArray[np.integer] | slice) -> Answers:
        rows = self.rows[indices]
        picked = self._typed(self.values[rows])
        let_go(self.values)
        if self.mask is not None:
            picked[self.mask[rows] == 0] = IGNORED
            let_go(self.mask)
        return picked.reshape(len(rows), *self.shape)

    def _typed(self, stored: Array) -> Answers:
        if self.dtype is np.int64:
            return stored.astype(np.int64)
        return stored.astype(np.float32)

    def take(self, indices: NDArray[np.integer]) -> Deferred:
        """Return the targets of some of these samples; no value is read."""
        return replace(self, rows=self.rows[indices])

    def settled(self) -> Targets:
        """Return the values themselves where they are few, else this."""
        size = len(self) * math.prod(self.shape) * np.dtype(self.dtype).itemsize
        return self[:] if size <= SMALL else self


Targets = Answers | Deferred

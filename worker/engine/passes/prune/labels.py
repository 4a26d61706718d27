"""Labels of channels, and which of them can only go together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Axis = NDArray[np.int64]
"""One label for each index along one dimension of a tensor."""
Axes = tuple[Axis, ...]
"""The labels of a tensor, one array for each dimension."""

STAYS = 0
"""Label of an index that never goes: samples, positions, pixels, the classes of a model."""
MEETS_FIXED = "its channels meet values whose number stays"


class Labels:
    """Disjoint sets of labels; the members of a set go together or stay together."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, dtype=np.int64)
        self._why: dict[int, str] = {}

    def fresh(self, count: int) -> Axis:
        """Return labels that nothing else has."""
        first = len(self._parent)
        new = np.arange(first, first + count)
        self._parent = np.concatenate([self._parent, new])
        return new

    def root(self, labels: Axis) -> Axis:
        """Return the name of the set that each label is in; `STAYS` where it was given."""
        found: Axis = self._parent[labels]
        while True:
            above: Axis = self._parent[found]
            if np.array_equal(above, found):
                return found
            found = above

    def join(self, one: Axis, other: Axis) -> None:
        """Put the labels at equal places of two arrays into one set each.

        A label that meets `STAYS` has to stay.
        """
        a, b = self.root(one), self.root(other)
        differ = a != b
        pairs = np.unique(np.stack([a[differ], b[differ]]), axis=1)
        for left, right in pairs.T.tolist():
            self._join(left, right)

    def keep(self, labels: Axis, why: str) -> None:
        """Say that labels have to stay, and why; the first reason stands."""
        for root in np.unique(self.root(labels)).tolist():
            if root != STAYS:
                self._why.setdefault(root, why)

    def why(self, label: int) -> str | None:
        """Return why a label has to stay; None where it may go."""
        root = int(self.root(np.array([label]))[0])
        return MEETS_FIXED if root == STAYS else self._why.get(root)

    def _join(self, left: int, right: int) -> None:
        left, right = self.root(np.array([left, right])).tolist()
        if left == right:
            return
        if STAYS in (left, right):
            self._why.setdefault(max(left, right), MEETS_FIXED)
            return
        first, second = min(left, right), max(left, right)
        self._parent[second] = first
        if second in self._why:
            self._why.setdefault(first, self._why.pop(second))


def unlabelled(shape: tuple[int, ...]) -> Axes:
    """Return the labels of a tensor no index of which may go."""
    return tuple(np.zeros(size, dtype=np.int64) for size in shape)

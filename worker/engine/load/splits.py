"""Which samples train, calibrate, validate, and which are sealed for the report alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.engine.load.dataset import Dataset, Rows
from worker.engine.load.deferred import Deferred

SEALED_SHARE = 0.2
VALIDATION_SHARE = 0.1
MAX_VALIDATION = 2000


@dataclass(frozen=True)
class Splits:
    """The data by role. No sample of `sealed` or `validation` is in `train` or `calibration`.

    Attributes:
        train: shuffled; any prefix holds the classes in their proportions.
        calibration: the same samples as `train`, which quantization takes its first ones from.
        validation: judges training while it runs; None where the data is too small to spare any.
        sealed: seen by the report alone; None where the data is too small to seal any.
    """

    train: Dataset
    calibration: Dataset
    validation: Dataset | None
    sealed: Dataset | None


def split(data: Dataset, test_data: Dataset | None, seed: int) -> Splits:
    """Divide the data by a seeded shuffle, stratified by class; files sorted by class are usual.

    Without `test_data`, 20 % of each class (at least one sample, where a class has two) are sealed.
    10 % of the rest validate. Pairs stay together, in every part.
    """
    size = 1 if data.scores is None else 2
    classes = class_indices(data)
    order = stratified_order(classes, len(data) // size, seed)
    sealed = test_data
    if sealed is None:
        chosen, order = _set_apart(order, classes, SEALED_SHARE, at_least=1)
        sealed = data.take(_whole(chosen, size)) if len(chosen) else None
    share = min(VALIDATION_SHARE, MAX_VALIDATION / len(order))
    chosen, order = _set_apart(order, classes, share, at_least=0)
    train = data.take(_whole(order, size))
    validation = data.take(_whole(chosen, size)) if len(chosen) else None
    return Splits(train, train, validation, sealed)


def class_indices(data: Dataset) -> NDArray[np.int64] | None:
    """Return the class of each sample; None where the targets are something else."""
    targets = data.targets
    if targets is None or isinstance(targets, Deferred):
        return None
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        return None
    return targets.astype(np.int64, copy=False)


def _whole(units: Rows, size: int) -> Rows:
    """Return the rows of some units of `size` consecutive rows."""
    rows: Rows = (units[:, None] * size + np.arange(size)).reshape(-1)
    return rows


def stratified_order(targets: NDArray[np.int64] | None, count: int, seed: int) -> Rows:
    """Return a seeded permutation in which every prefix holds the classes in proportion.

    Each class is shuffled and its members are spread evenly over the whole: the i-th of n gets the
    place (i + u) / n, with one u in [0, 1) for each class.
    """
    generator = np.random.default_rng(seed)
    shuffled: Rows = generator.permutation(count)
    if targets is None:
        return shuffled
    place = np.empty(count)
    for members in _classes(shuffled, targets):
        place[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def _classes(rows: Rows, targets: NDArray[np.int64]) -> Sequence[Rows]:
    """Return the rows of each class, in the order that they have in `rows`."""
    by_class = rows[np.argsort(targets[rows], kind="stable")]
    _, starts = np.unique(targets[by_class], return_index=True)
    return np.split(by_class, starts[1:])


def _set_apart(
    order: Rows, targets: NDArray[np.int64] | None, share: float, at_least: int
) -> tuple[Rows, Rows]:
    """Return the rows of a share of every class, and the rest, both in the given order."""
    classes = [order] if targets is None else _classes(order, targets)
    counts = [
        min(max(round(share * len(members)), at_least), len(members) - 1) for members in classes
    ]
    chosen = np.zeros(int(order.max()) + 1, bool)
    for members, count in zip(classes, counts, strict=True):
        chosen[members[:count]] = True
    return order[chosen[order]], order[~chosen[order]]

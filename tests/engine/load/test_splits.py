"""Who sees which sample: seeded, stratified, never twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.load.dataset import Dataset, Source
from worker.engine.load.splits import Splits, split, stratified_order


def _dataset(targets: list[int] | None, count: int = 0) -> Dataset:
    count = len(targets) if targets is not None else count
    values = np.arange(count, dtype=np.float32)[:, None]
    labels = None if targets is None else np.array(targets)
    return Dataset((Source(values, (1,), torch.float32),), np.arange(count), labels)


def _parts(splits: Splits) -> list[Dataset]:
    return [part for part in (splits.train, splits.validation, splits.sealed) if part is not None]


SORTED = [label for label in range(10) for _ in range(100)]


def test_sorted_data_gives_balanced_prefixes() -> None:
    splits = split(_dataset(SORTED), None, 0)
    for size in (20, 100, 333):
        counts = np.bincount(splits.calibration.head(size).targets, minlength=10)
        assert counts.max() - counts.min() <= 2
    assert np.bincount(splits.sealed.targets).tolist() == [20] * 10
    assert np.bincount(splits.validation.targets).tolist() == [8] * 10


def test_the_same_seed_gives_the_same_parts_and_another_one_others() -> None:
    one, two, other = (split(_dataset(SORTED), None, seed) for seed in (5, 5, 6))
    assert one.train.rows.tolist() == two.train.rows.tolist()
    assert set(one.sealed.rows) == set(two.sealed.rows) != set(other.sealed.rows)


def test_test_data_is_the_sealed_part_whole_and_in_order() -> None:
    test = _dataset(SORTED[:50])
    splits = split(_dataset(SORTED), test, 0)
    assert splits.sealed is test
    assert len(splits.train) + len(splits.validation) == 1000


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=120) | st.integers(1, 120),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_every_sample_has_one_role_and_keeps_its_label(data: list[int] | int, seed: int) -> None:
    dataset = _dataset(None, data) if isinstance(data, int) else _dataset(data)
    splits = split(dataset, None, seed)
    rows = np.concatenate([part.rows for part in _parts(splits)])
    assert sorted(rows.tolist()) == list(range(len(dataset)))
    assert len(splits.train)
    for part in _parts(splits):
        (values,), targets = part.prepare(np.arange(len(part)))
        assert values[:, 0].tolist() == part.rows.tolist()
        if targets is not None:
            assert dataset.targets is not None
            assert targets.tolist() == dataset.targets[part.rows].tolist()
    if not isinstance(data, int):
        assert set(splits.train.targets) == set(data), "a class has nobody left to learn from"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(0, 99))
@settings(deadline=None)
def test_the_order_is_a_permutation_with_classes_in_proportion(
    labels: list[int], seed: int
) -> None:
    targets = np.array(labels)
    order = stratified_order(targets, len(targets), seed)
    assert sorted(order.tolist()) == list(range(len(targets)))
    half = order[: len(order) // 2]
    for label in set(labels):
        share = (targets == label).mean()
        assert abs((targets[half] == label).sum() - share * len(half)) <= 4


def test_batches_cover_everything_in_order() -> None:
    data = _dataset(SORTED[:23])
    sizes = [len(targets) for _, targets in data.batches(10)]
    assert sizes == [10, 10, 3]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tiny_data_still_trains(count: int) -> None:
    splits = split(_dataset([0] * count), None, 0)
    assert len(splits.train) >= 1
    assert splits.validation is None

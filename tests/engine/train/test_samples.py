from __future__ import annotations

import numpy as np
import pytest
import torch

from worker.engine.load.dataset import Dataset, Source
from worker.engine.train import samples as module
from worker.engine.train.samples import batches_per_epoch, reader, shuffled_batches


def dataset(count: int = 20) -> Dataset:
    values = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    return Dataset((Source(values, (3,), torch.float32),), np.arange(count)[::-1], np.arange(count))


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_batches_are_the_same_prepared_once_or_each_time(limit, monkeypatch):
    monkeypatch.setattr(module, "MAX_CACHED_BYTES", limit)
    (inputs,), targets = reader(dataset())(torch.tensor([0, 5]))
    assert inputs.tolist() == [[57, 58, 59], [42, 43, 44]]
    assert targets.tolist() == [0, 5]


@pytest.mark.parametrize(("samples", "size"), [(129, 128), (128, 128), (5, 128), (1000, 7)])
def test_an_epoch_sees_every_sample_once_in_batches_of_nearly_one_size(samples, size):
    batches = shuffled_batches(samples, size, torch.Generator().manual_seed(0))
    sizes = [len(b) for b in batches]
    assert len(batches) == batches_per_epoch(samples, size)
    assert sorted(torch.cat(batches).tolist()) == list(range(samples))
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_order_changes_from_epoch_to_epoch():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.cat(shuffled_batches(50, 10, generator)) for _ in range(2))
    assert not torch.equal(first, second)

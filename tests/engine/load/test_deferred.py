"""Targets that stay in their file are what the same targets in memory are, in any process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from worker.engine.load import deferred
from worker.engine.load.dataset import Dataset, Source
from worker.engine.load.deferred import IGNORED, Deferred
from worker.engine.load.splits import split
from worker.engine.train.spread.parcel import open_dataset, store_dataset

TOKENS = np.random.default_rng(0).integers(0, 9, (40, 5)).astype(np.int32)
MASK = (np.arange(5) < np.arange(1, 41)[:, None] % 6).astype(np.int8)
WANTED = np.where(MASK, TOKENS, IGNORED)


def stored(folder: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Return an array as a map of a file."""
    values.tofile(folder / name)
    return np.memmap(folder / name, values.dtype, "r", shape=values.shape)


def dataset(folder: Path) -> Dataset:
    tokens, mask = stored(folder, "tokens", TOKENS), stored(folder, "mask", MASK)
    rows = np.arange(40)
    targets = Deferred(tokens, rows, (5,), np.int64, mask)
    return Dataset((Source(tokens, (5,), torch.int64),), rows, targets)


def test_they_are_split_taken_and_indexed_as_arrays_are(tmp_path: Path) -> None:
    splits = split(dataset(tmp_path), None, seed=3)
    for part in (splits.train, splits.validation, splits.sealed.take(np.array([4, 1])).head(1)):
        assert isinstance(part.targets, Deferred)
        assert (part.targets[:] == WANTED[part.rows]).all()
        _, targets = part.prepare(np.arange(len(part)))
        assert targets.dtype == torch.int64
        assert (targets.numpy() == WANTED[part.rows]).all()


def test_few_are_read_at_once(tmp_path: Path, monkeypatch) -> None:
    targets = dataset(tmp_path).targets
    assert (targets.settled() == WANTED).all()
    monkeypatch.setattr(deferred, "SMALL", 100)
    assert targets.settled() is targets


def test_other_processes_map_the_same_files(tmp_path: Path) -> None:
    part = split(dataset(tmp_path), None, seed=1).train
    (tmp_path / "parcel").mkdir()
    opened = open_dataset(store_dataset(part, tmp_path / "parcel", "data"))
    assert [p.name for p in (tmp_path / "parcel").iterdir()] == ["data-rows.raw"]
    assert isinstance(opened.targets, Deferred)
    (ours,), wanted = part.prepare(np.arange(len(part)))
    (theirs,), found = opened.prepare(np.arange(len(part)))
    assert torch.equal(ours, theirs)
    assert torch.equal(wanted, found)

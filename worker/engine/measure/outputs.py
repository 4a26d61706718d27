"""What a model answers in the target runtime, over a whole dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.engine.load.dataset import Dataset
from worker.engine.measure.opened import Settings, open_model

Floats = NDArray[np.floating]

BATCH = 64


def dataset_outputs(path: Path, dataset: Dataset, settings: Settings, batch: int = BATCH) -> Floats:
    """Return the first output of a model file for every sample: (samples, …)."""
    return np.concatenate(list(stream_outputs(path, dataset, settings, batch)))


def stream_outputs(
    path: Path, dataset: Dataset, settings: Settings, batch: int = BATCH
) -> Iterator[Floats]:
    """Yield the first output of a model file, batch by batch: (at most `batch`, …).

    Args:
        path: a model with a dynamic first dimension.
        dataset: its inputs, in the order of the model's.
        settings: of the runtime that opens it.
        batch: samples in one call.
    """
    network = open_model(path, settings)
    for inputs, _ in dataset.batches(batch):
        yield network.run([tensor.numpy() for tensor in inputs])[0]

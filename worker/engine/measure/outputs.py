"""What a model answers in the target runtime, over a whole dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
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

    A file whose batch is fixed is called with just that many samples; the last call is filled up
    with copies, whose answers are left out.

    Args:
        path: a model whose first dimensions are the batch.
        dataset: its inputs, in the order of the model's.
        settings: of the runtime that opens it.
        batch: samples in one call.
    """
    network = open_model(path, settings)
    fixed = network.inputs[0].shape[0]
    size = fixed if isinstance(fixed, int) else batch
    for inputs, _ in dataset.batches(size):
        rows = len(inputs[0])
        if isinstance(fixed, int) and rows < fixed:
            inputs = tuple(_filled(tensor, fixed) for tensor in inputs)
        yield network.run([tensor.numpy() for tensor in inputs])[0][:rows]


def _filled(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Repeat the last sample until there are `size`."""
    return torch.cat([tensor, tensor[-1:].expand(size - len(tensor), *tensor.shape[1:])])

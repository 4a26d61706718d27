"""BatchNorm statistics of a pruned network, estimated anew on real data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from worker.engine.load.data import Dataset
from worker.engine.model import Model
from worker.engine.train.placement import move

BATCH = 128
FEWEST = 2  # statistics over one sample have no variance


def recalibrate(model: Model, dataset: Dataset, samples: int, device: torch.device) -> bool:
    """Replace running means and variances by those of the network as it is now, in place.

    Weights that went shift what the layers behind them see; the statistics of the whole network no
    longer fit. Everything but the normalization stays in eval mode (dropout stays off), and no
    weight changes. Cumulative statistics: every batch counts the same, whatever momentum the layers
    have (Li et al. 2020, arXiv:2007.02491, "adaptive batch normalization").

    Args:
        model: left in eval mode on the CPU.
        dataset: calibration part; its first samples hold the classes in proportion.
        samples: how many of them to use, all when there are fewer.
        device: where to compute.

    Returns:
        Whether there was anything to do: layers with running statistics, and two samples.
    """
    layers = [layer for layer in model.module.modules() if _tracks(layer)]
    used = dataset.head(samples)
    if not layers or len(used) < FEWEST:
        return False
    module = move(model.module, device)
    with torch.no_grad(), _cumulative(layers):
        for rows in np.array_split(np.arange(len(used)), -(-len(used) // BATCH)):
            inputs, _ = used.prepare(rows)
            module(*(tensor.to(device) for tensor in inputs))
    move(module, torch.device("cpu"))
    return True


def _tracks(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.running_mean is not None


@contextmanager
def _cumulative(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Let layers gather plain averages from nothing; their own momentum comes back afterwards."""
    norms = [layer for layer in layers if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    try:
        yield
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()

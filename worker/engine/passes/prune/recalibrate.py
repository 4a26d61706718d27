"""BatchNorm statistics of a pruned network, corrected by what it sees of real data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from worker.engine.load.data import Dataset
from worker.engine.model import Model
from worker.engine.train.placement import move

BATCH = 128
FEWEST = 2  # statistics over one sample have no variance
TINY = 1e-12

Statistics = Mapping[str, tuple[Tensor, Tensor]]
"""Mean and variance by layer."""


def recalibrate(
    model: Model,
    dataset: Dataset,
    samples: int,
    device: torch.device,
    before: Model | None = None,
    kept: Mapping[str, Tensor] | None = None,
) -> bool:
    """Correct running means and variances for what the network lost, in place.

    Weights that went shift what the layers behind them see. Everything but the normalization stays
    in eval mode (dropout stays off), and no weight changes. Cumulative statistics: every batch
    counts the same, whatever momentum the layers have (Li et al. 2020, arXiv:2007.02491, "adaptive
    batch normalization").

    With `before`, a layer keeps the distance, in standard deviations, that the learnt statistics
    had from those of the untouched network on these samples: statistics learnt on augmented images
    are not those of plain ones, and those of plain ones cost an untouched CIFAR ResNet-20 three
    points. Layers that `before` has not in the same width get the measured ones.

    Args:
        model: left in eval mode on the CPU.
        dataset: calibration part; its first samples hold the classes in proportion.
        samples: how many of them to use, all when there are fewer.
        device: where to compute.
        before: the network that the running statistics belong to; left as it is.
        kept: which of the channels of `before` a layer still has, by its name; None for all.

    Returns:
        Whether there was anything to do: layers with running statistics, and two samples.
    """
    layers = _tracking(model)
    used = dataset.head(samples)
    if not layers or len(used) < FEWEST:
        return False
    learnt = {name: _statistics(layer) for name, layer in layers.items()}
    old = {} if before is None else dict(_measured(before.clone(), used, device))
    for name, places in (kept or {}).items():
        mean, variance = old[name]
        old[name] = mean[places], variance[places]
    new = _measured(model, used, device)
    for name, layer in layers.items():
        _set(layer, *_moved(learnt[name], old.get(name), new[name]))
    return True


def _moved(
    learnt: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor] | None, new: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    if old is None or old[0].shape != new[0].shape:
        return new
    # A channel that was constant before has no ratio; one that is constant now has ratio 0.
    ratio = torch.where(old[1] > TINY, new[1] / old[1].clamp(min=TINY), 0.0)
    mean = new[0] + (learnt[0] - old[0]) * ratio.sqrt()
    return mean, torch.where(old[1] > TINY, learnt[1] * ratio, new[1])


def _measured(model: Model, used: Dataset, device: torch.device) -> Statistics:
    """Return the plain averages over the batches; the model has them afterwards."""
    layers = _tracking(model)
    module = move(model.module, device)
    with torch.no_grad(), _cumulative(layers):
        for rows in np.array_split(np.arange(len(used)), -(-len(used) // BATCH)):
            inputs, _ = used.prepare(rows)
            module(*(tensor.to(device) for tensor in inputs))
    move(module, torch.device("cpu"))
    return {name: _statistics(layer) for name, layer in layers.items()}


def _tracking(model: Model) -> dict[str, _BatchNorm]:
    return {
        name: layer
        for name, layer in model.module.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


def _statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    mean, variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
    return mean.clone(), variance.clone()


def _set(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    layer.get_buffer("running_mean").copy_(mean)
    layer.get_buffer("running_var").copy_(variance)


@contextmanager
def _cumulative(layers: Mapping[str, _BatchNorm]) -> Iterator[None]:
    """Let layers gather plain averages from nothing; their own momentum comes back afterwards."""
    momenta = {name: layer.momentum for name, layer in layers.items()}
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    try:
        yield
    finally:
        for name, layer in layers.items():
            layer.momentum = momenta[name]
            layer.eval()

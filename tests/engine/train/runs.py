"""Short runs on real digits, for the tests of what a run may ask for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from planish.contract.recipe import Train
from tests.engine.passes.models import CPU, canonical, digit_splits
from worker.engine.load.dataset import Dataset
from worker.engine.model import Model
from worker.engine.progress import Silent
from worker.engine.train.loop import Run, Trained, train
from worker.engine.train.losses import cross_entropy


def a_run(params: Train, data: Dataset | None = None, **other) -> Run:
    """Return a run on 240 digits without validation."""
    settings = {
        "op": "retrain",
        "step": 1,
        "data": digit_splits().train.head(240) if data is None else data,
        "validation": None,
        "seed": 0,
        "device": CPU,
        "progress": Silent(),
    }
    return Run(train=params, **{**settings, **other})


def plain_net(norm: bool = False, dropout: float = 0.0) -> Model:
    """Return a small convolutional network; without BatchNorm, its batches may be divided."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(512, 10),
    ]
    # Exported in train mode: dropout of an eval-mode export would be gone.
    return canonical(nn.Sequential(*layers).train(), (torch.randn(2, 1, 8, 8),))


def trained(
    params: Train, net: Callable[[], Model] = plain_net, loss=cross_entropy, **other
) -> tuple[Model, Trained]:
    """Return a trained network, and what was told of it."""
    model = net()
    return model, train(model, loss, a_run(params, **other))

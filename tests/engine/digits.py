"""A small network really trained on real scans, for tests of whole jobs; takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from tests.exports import export_pt2
from tests.zoo import small_residual_cnn

SCALE = 1 / 16


@dataclass(frozen=True)
class Digits:
    """Files as a user would send them; `module` is what lies in `model`."""

    module: nn.Module
    model: Path
    data: Path
    test_data: Path


def trained_digits(folder: Path, epochs: int = 8, width: int = 16) -> Digits:
    """Train on 1,347 digits, keep 450 apart, and write the files sorted by class."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = (np.sort(part) for part in np.split(order, [1347]))
    module, example = small_residual_cnn(width=width)
    _fit(module, torch.from_numpy(images[train] * np.float32(SCALE)), labels[train], epochs)
    paths = folder / "digits.pt2", folder / "data.npz", folder / "test.npz"
    export_pt2(module, example, paths[0])
    for path, rows in ((paths[1], train), (paths[2], test)):
        rows = rows[np.argsort(labels[rows], kind="stable")]
        np.savez(path, inputs=images[rows], targets=labels[rows])
    return Digits(module, *paths)


def _fit(module: nn.Module, inputs: torch.Tensor, labels: np.ndarray, epochs: int) -> None:
    targets = torch.from_numpy(labels)
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(module.parameters(), 0.05, 0.9, weight_decay=5e-4)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(targets)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(module(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    module.eval()
